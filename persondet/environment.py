"""What this process runs on: what is installed, versions, processors, processes beside it."""

from __future__ import annotations

import ctypes
import importlib
import logging
import multiprocessing
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from persondet.errors import InstallationError, PersondetError

Progress = Callable[[int, int | None], None]
"""`progress(done, total)` in the unit of the work; `total` is None while nobody knows it."""

_DISTRIBUTIONS = (
    "persondet torch torchvision detectron2 numpy albumentations pycocotools av".split()
)
# glibc's numbers of M_MMAP_THRESHOLD (at most this much), M_TRIM_THRESHOLD and M_TOP_PAD; bytes.
_KEEPING = {-3: 32 << 20, -1: 2**31 - 1, -2: 64 << 20}


def require_detectron2() -> None:
    """Import PyTorch and Detectron2, or say in one sentence what to run.

    Raises: InstallationError: when one of them cannot be imported, with the reason.
    """
    _require("torch", "install it with `make install`, or `pip install torch torchvision`")
    _require("detectron2.modeling", "run `python tools/install_detectron2.py`")


def _require(module: str, mend: str) -> None:
    """Import `module`, or raise `InstallationError` with the mend."""
    # A broken build fails with OSError (a shared library) or RuntimeError as well as ImportError.
    try:
        importlib.import_module(module)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        name = "PyTorch" if module == "torch" else "Detectron2"
        reason = " ".join(str(error).split())
        raise InstallationError(f"{name} cannot be imported ({reason}); {mend}.") from error


def environment_report() -> dict[str, str | int]:
    """Return versions and hardware as plain values that JSON can hold.

    A package that is not installed has the version ""; `cuda` and `device` describe the first GPU
    that PyTorch sees, "" and "cpu" without one; `cpu_count` counts the cores this process may use.
    """
    report: dict[str, str | int] = {"python": platform.python_version(), "os": platform.platform()}
    for name in _DISTRIBUTIONS:
        try:
            report[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            report[name] = ""
    # OpenCV comes in several distributions, so its module is asked.
    cv2, torch = _imported("cv2"), _imported("torch")
    report["opencv"] = str(cv2.__version__) if cv2 else ""
    has_gpu = torch is not None and torch.cuda.is_available()
    report["cuda"] = str(torch.version.cuda or "") if has_gpu else ""
    report["device"] = str(torch.cuda.get_device_name(0)) if has_gpu else "cpu"
    report["cpu_count"] = cpu_count()
    return report


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError):
        return None


def config_folder() -> Path:
    """Return the folder of the configs that come with the package.

    It lies in an installed package, and beside the package in a checkout.
    """
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def keep_freed_memory() -> None:
    """Let the C library keep for later what is freed, unless the user has set how it behaves.

    Each frame frees the maps of the one before. Given back to the system, their pages are cleared
    and mapped again for the next frame, which may take a quarter of a forward pass. Of glibc only;
    the process stays as large as its largest frame made it.
    """
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    for parameter, size in _KEEPING.items():
        mallopt(parameter, size)


def cpu_count() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def process_pool(jobs: int, killed: str) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool with a new process per task, which starts as its command would.

    Each process gives its memory back when its task ends.

    Args:
        jobs: tasks at a time.
        killed: what to say when the system kills a process, most likely for want of memory.

    Raises: PersondetError: with `killed`, when the block meets a process that was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            jobs, spawn, initializer=quiet_upstream, max_tasks_per_child=1
        ) as pool:
            yield pool
    except BrokenProcessPool as error:
        raise PersondetError(killed) from error


def quiet_upstream() -> None:
    """Keep the deprecation notes of Detectron2 about its own code off the terminal.

    They come at every start, concern calls that Detectron2 makes and a user cannot change, and
    hide what matters. Warnings about anything else are left as they are.
    """
    for message in (r"`torch\.jit\.script", r"torch\.meshgrid: in an upcoming release"):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)
