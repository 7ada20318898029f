"""Stopping and resuming: Ctrl-C between two steps, and what a resumed run restores.

Beside weights, optimizer and hooks that is the position in the data, every random state of the
process, and the event storage, so that smoothed values go on as if the run had never stopped.
"""

from __future__ import annotations

import logging
import random
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from types import FrameType
from typing import Any

import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from persondet.config.check import leaves
from persondet.data.loaders import DatasetState
from persondet.engine.defaults import config_text
from persondet.errors import CheckpointError, InterruptedRun

logger = logging.getLogger(__name__)

# Changing these leaves every step as it would have been (a longer MAX_ITER: with stepwise rates).
_HARMLESS = (
    *("DATALOADER.NUM_WORKERS", "DATASETS.ROBOFLOW.NAME", "DATASETS.ROBOFLOW.ROOT"),
    *("DATASETS.TEST", "INPUT.MAX_SIZE_TEST", "INPUT.MIN_SIZE_TEST", "LOG_PERIOD", "MODEL.WEIGHTS"),
    *("OUTPUT_DIR", "SOLVER.BEST_CHECKPOINT", "SOLVER.CHECKPOINT", "SOLVER.EARLY_STOPPING"),
    *("SOLVER.MAX_ITER", "TEST", "VERSION", "VIDEO", "VIS_PERIOD", "VISUALIZATION"),
)


class RunState:
    """The state of a run outside of its trainer, and the check that it is the same run.

    Args:
        cfg: the config.
        seed: what the training stream of this start follows from.

    Attributes:
        seed: what it goes on to follow from after a resume.
        resumed: the state that the run goes on from; empty for a new run.
        redo: whether the hooks behind the checkpoint have yet to do their part of its step.
    """

    def __init__(self, cfg: CfgNode, seed: int) -> None:
        self._cfg = cfg
        self.resumed: dict[str, Any] = {}
        self.seed = seed
        self.redo = False

    def state_dict(self, storage: EventStorage) -> dict[str, Any]:
        """Return what a checkpoint needs; all ranks call this together."""
        return {
            "stream_seed": self.seed,
            "random": comm.gather(random_state()),
            "log": log_state(storage),
            "datasets": {
                role: [asdict(dataset) for dataset in datasets]
                for role, datasets in self._datasets.items()
            },
        }

    def take_up(self, checkpoint: Mapping[str, Any], path: str, config: str) -> None:
        """Check that a checkpoint belongs to this run, and keep its state until training starts.

        Args:
            checkpoint: with `run_state`; without it (Detectron2's, or an old one) the run goes on,
                but not to the bit.
            path: names the checkpoint in messages.
            config: the config it was saved with, as YAML.

        Raises: CheckpointError: when the datasets are not those the run began with.
        """
        done, steps = int(checkpoint.get("iteration", -1)) + 1, self._cfg.SOLVER.MAX_ITER
        logger.info("Resumed from %s: %d of %d steps are done.", path, done, steps)
        state = checkpoint.get("run_state")
        if state is None:
            logger.warning("%s: has no random states: the run goes on, but not to the bit.", path)
            return
        self._refuse_other_datasets(state["datasets"], path)
        self._warn_of_changes(state, path, config)
        self.resumed = state
        self.redo = not state["step_is_complete"]
        if self._cfg.SEED < 0:
            self.seed = state["stream_seed"]

    def restore_random_state(self) -> None:
        """Give this rank its random states; a rank that is new keeps those it has."""
        states = self.resumed.get("random", [])
        if comm.get_rank() < len(states):
            restore_random_state(states[comm.get_rank()])

    @cached_property
    def _datasets(self) -> dict[str, list[DatasetState]]:
        return {
            role: [
                DatasetState.of(get_detection_dataset_dicts((name,), filter_empty=False))
                for name in self._cfg.DATASETS[role]
            ]
            for role in ("TRAIN", "VAL")
        }

    def _refuse_other_datasets(self, earlier: Mapping[str, Any], path: str) -> None:
        mend = "resume with the data the run began with, or start anew in another OUTPUT_DIR."
        for role, datasets in self._datasets.items():
            names = self._cfg.DATASETS[role]
            if len(earlier[role]) != len(datasets):
                raise CheckpointError(
                    f"{path}: the run began with {len(earlier[role])} datasets in DATASETS.{role}, "
                    f"and there are {len(datasets)} now ({', '.join(names) or 'none'}); {mend}"
                )
            for name, before, now in zip(names, earlier[role], datasets, strict=True):
                difference = DatasetState(**before).difference(now)
                if difference:
                    raise CheckpointError(f"{path}: {name} {difference}; {mend}")

    def _warn_of_changes(self, state: Mapping[str, Any], path: str, config: str) -> None:
        changes = list(config_changes(config, config_text(self._cfg)))
        ranks = len(state["random"])
        if ranks != comm.get_world_size():
            changes.append(f"{ranks} processes → {comm.get_world_size()}")
        if changes:
            logger.warning(
                "%s was saved under another config: the run goes on, but not as it would have "
                "without the change (%s).",
                path,
                "; ".join(changes),
            )


def config_changes(before: str, now: str) -> Iterator[str]:
    """Yield `KEY: old → new` for each key whose change makes the steps to come other ones.

    Args:
        before, now: configs as YAML.
    """
    old, new = (dict(leaves(yaml.safe_load(text) or {})) for text in (before, now))
    # Along a cosine every rate depends on where it ends.
    on_a_cosine = new.get("SOLVER.LR_SCHEDULER_NAME") == "WarmupCosineLR"
    for key in sorted(old.keys() & new.keys()):
        harmless = any(
            key == known or key.startswith((f"{known}.", f"{known}_")) for known in _HARMLESS
        )
        matters = not harmless or (key == "SOLVER.MAX_ITER" and on_a_cosine)
        if old[key] != new[key] and matters:
            yield f"{key}: {old[key]} → {new[key]}"


def random_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators, of the GPU in use too."""
    version, words, gauss = random.getstate()
    # The state that Detectron2, Albumentations and data loaders draw from is the global one.
    kind, key, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
    return {
        "python": [version, torch.tensor(words), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(key, np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if on_gpu else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Put every generator into the state that `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, key, position, has_gauss, cached = state["numpy"]
    key = key.numpy().astype(np.uint32)
    np.random.set_state((kind, key, position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Give every generator its state back when the block ends."""
    state = random_state()
    try:
        yield
    finally:
        restore_random_state(state)


# The longest window that anything looks back over (Detectron2's estimate of the time left).
_KEPT = 1000


def log_state(storage: EventStorage) -> dict[str, Any]:
    """Return the newest values of each scalar, and what has been said of all of them.

    Lists of numbers and not tensors: a NaN in a log is a finding, in a tensor it would be damage.
    """
    state = {}
    hints = storage.smoothing_hints()
    # In the order of `latest`, which is that of a row.
    for name, (value, iteration) in storage.latest().items():
        history = storage.history(name)
        newest = history.values()[-_KEPT:]
        state[name] = {
            "values": [float(number) for number, _ in newest],
            "iterations": [int(at) for _, at in newest],
            "count": history._count,
            "average": float(history.global_avg()),
            "latest": [float(value), int(iteration)],
            "smoothed": bool(hints[name]),
        }
    return state


def restore_log(storage: EventStorage, state: dict[str, Any]) -> None:
    """Put back into `storage` what `log_state` returned."""
    for name, scalar in state.items():
        history = storage.histories()[name]
        history._data = list(zip(scalar["values"], scalar["iterations"], strict=True))
        history._count = scalar["count"]
        history._global_avg = scalar["average"]
        # Detectron2 does not time the first steps of a process: until then this one has no newest
        # value, and an older one would get a row of its own.
        if name != "time":
            value, iteration = scalar["latest"]
            storage.latest()[name] = (value, iteration)
        storage.smoothing_hints()[name] = scalar["smoothed"]


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside its block the first signal is remembered; the second stops at once.

    A signal that the process was started to ignore (`nohup`, a background job) stays ignored.

    Attributes:
        requested: whether this process got a signal.
    """

    def __init__(self) -> None:
        self.requested = False
        self._earlier: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        """Listen; in any thread but the main one nothing can be heard."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._earlier[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def agreed(self) -> bool:
        """Return whether any rank got a signal; all ranks ask together, and hear the same."""
        return any(comm.all_gather(self.requested))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        logger.warning(
            "%s: a checkpoint is saved when the step, or the evaluation, that is running has "
            "ended; once more stops at once.",
            signal.Signals(number).name,
        )


@contextmanager
def saying_how_to_resume(command: Sequence[str]) -> Iterator[None]:
    """Add the command that resumes to an interruption; a KeyboardInterrupt becomes one.

    Args:
        command: the words of the command line; empty: unknown.

    Raises: InterruptedRun: with the whole sentence.
    """
    try:
        yield
    except (InterruptedRun, KeyboardInterrupt) as error:
        how = f": {resume_command(command)}" if command else " the same command with --resume"
        what = str(error) or "interrupted at once; what the last checkpoint has is kept"
        raise InterruptedRun(f"{what}; go on with{how}") from None


def resume_command(command: Sequence[str]) -> str:
    """Return the command line that goes on with a run, quoted for a shell.

    Args:
        command: the words of the command that began or resumed it: interpreter, script, flags.
    """
    words = [word for word in command if word not in ("--resume", "--overwrite")]
    script = next((n for n, word in enumerate(words) if word.endswith(".py")), len(words) - 1)
    return shlex.join([*words[: script + 1], "--resume", *words[script + 1 :]])
