"""Ctrl-C and SIGTERM as a wish, which the training grants between two steps."""

from __future__ import annotations

import logging
import shlex
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from persondet.errors import InterruptedRun

logger = logging.getLogger(__name__)

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
        self.requested = False
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._earlier[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back to whom they belonged."""
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
        self._earlier.clear()

    def agreed(self) -> bool:
        """Return whether any rank got a signal; all ranks ask together, and hear the same."""
        if comm.get_world_size() == 1:
            return self.requested
        flag = torch.tensor([int(self.requested)])
        if dist.get_backend() == "nccl":
            # Its ranks exchange tensors on the GPU, and reading one would wait for the step.
            return any(comm.all_gather(self.requested))
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return bool(flag.item())

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
