"""`provenance.json`: what a run was made of, so that it can be made again.

    {"schema": 1, "starts": [{
        "command": ["tools/train_net.py", ...], "started": "2025-01-31T12:00:00+00:00",
        "ended": ..., "first_step": 0, "steps_done": 900, "exit": "finished",
        "config": {"files": [...], "overrides": [...], "sha256": ...}, "seeds": {...},
        "datasets": {"person_train": {"images": 300, ...}}, "versions": {...},
        "git": {"commit": ..., "changed_files": 0} or null, "hardware": {...}}]}

One entry per start: `--resume` adds one. `ended` and `exit` are null while a run goes on, and stay
so when it is killed. Paths are as the user gave them; secrets are not kept. Nothing in this file is
ever a reason for a training to fail.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from persondet.data.fingerprint import dataset_fingerprint
from persondet.engine.defaults import config_text
from persondet.environment import cpu_count, environment_report
from persondet.errors import InterruptedRun
from persondet.files import write_json
from persondet.redaction import words_without_secrets

logger = logging.getLogger(__name__)

SCHEMA = 1
FILE_NAME = "provenance.json"
_ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def provenance(
    cfg: CfgNode, config_file: str, overrides: Sequence[str], progress: Callable[[], int]
) -> Iterator[None]:
    """Record the start of a training, and its end, however it comes; on the main process only.

    Args:
        cfg: the resolved config.
        config_file, overrides: as on the command line.
        progress: returns the number of steps that are done.
    """
    if not comm.is_main_process():
        yield
        return
    path = Path(cfg.OUTPUT_DIR) / FILE_NAME
    start: dict[str, Any] = {}
    with _never_in_the_way():
        start = _describe(cfg, config_file, overrides, progress())
        _write(path, [*_earlier(path), start])
    try:
        yield
    except (KeyboardInterrupt, InterruptedRun):
        _end(path, start, progress, "interrupted")
        raise
    except BaseException as error:
        _end(path, start, progress, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        raise
    else:
        early = progress() < cfg.SOLVER.MAX_ITER
        _end(path, start, progress, "stopped early" if early else "finished")


def _end(path: Path, start: dict[str, Any], progress: Callable[[], int], reason: str) -> None:
    if not start:  # its beginning could not be described
        return
    with _never_in_the_way():
        start |= {"ended": _now(), "steps_done": progress(), "exit": reason}
        _write(path, [*_earlier(path)[:-1], start])


@contextmanager
def _never_in_the_way() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("%s could not be written: %s", FILE_NAME, error)


def _write(path: Path, starts: list[dict[str, Any]]) -> None:
    write_json(path, {"schema": SCHEMA, "starts": starts})


def _earlier(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["starts"])
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s); its record starts anew.", path, error)
        return []


def _describe(
    cfg: CfgNode, config_file: str, overrides: Sequence[str], steps_done: int
) -> dict[str, Any]:
    names = dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.VAL, *cfg.DATASETS.TEST))
    return {
        "command": words_without_secrets(sys.argv),
        "started": _now(),
        "ended": None,
        "first_step": steps_done,
        "steps_done": steps_done,
        "exit": None,
        "config": {
            "files": _config_files(config_file),
            "overrides": words_without_secrets(overrides),
            "sha256": hashlib.sha256(config_text(cfg).encode()).hexdigest(),
        },
        "seeds": {"SEED": cfg.SEED, "TEST.VAL_LOSS.SEED": cfg.TEST.VAL_LOSS.SEED},
        "datasets": {name: dataset_fingerprint(name) for name in names},
        "versions": environment_report(),
        "git": git_state(_ROOT),
        "hardware": _hardware(),
    }


def git_state(root: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout at `root`, and how many of its files were changed.

    Returns: None when `root` is no checkout, or git cannot be asked.
    """
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed_files": len(changed)}


def _git(root: Path, *words: str) -> str:
    # Without optional locks git only reads.
    return subprocess.run(
        ("git", "--no-optional-locks", "-C", str(root), *words),
        capture_output=True,
        check=True,
        encoding="utf-8",
        timeout=10,
    ).stdout


def _config_files(config_file: str) -> list[str]:
    """Return the config file and those that its `_BASE_` names, one after the other."""
    files: list[Path] = []
    path = Path(config_file) if config_file else None
    while path and path not in files:
        files.append(path)
        base = re.search(r"^_BASE_:\s*[\"']?(.+?)[\"']?\s*(?:#.*)?$", _text(path), re.MULTILINE)
        path = path.parent / base[1] if base else None
    return [os.path.normpath(file) for file in files]


def _text(path: str | Path) -> str:
    with suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def _hardware() -> dict[str, Any]:
    model = re.search(r"^model name\s*: (.+)$", _text("/proc/cpuinfo"), re.MULTILINE)
    memory = None
    with suppress(AttributeError, ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpus = range(torch.cuda.device_count())
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": cpu_count(),
        "memory_bytes": memory,
        "gpus": [
            {
                "name": torch.cuda.get_device_name(number),
                "memory_bytes": torch.cuda.get_device_properties(number).total_memory,
            }
            for number in gpus
        ],
        "processes": comm.get_world_size(),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
