"""What ended a rank, and how it travels to the process that started it."""

from __future__ import annotations

import importlib
import json
import traceback
from dataclasses import asdict, dataclass

import torch.distributed as dist

from persondet.errors import PersondetError

# What a rank says when another one has gone: a consequence, never the cause.
_LOST_PEER = (
    "gloo",
    "NCCL",
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
)


@dataclass(frozen=True)
class Failure:
    """The error of one rank.

    Args:
        rank: the rank, over all machines.
        module: where the error's class is defined.
        kind: the name of that class.
        sentence: `str` of the error.
        exit_code: of the command; 0 for a bug, which has none of its own.
        trace: the traceback.
    """

    rank: int
    module: str
    kind: str
    sentence: str
    exit_code: int
    trace: str

    @classmethod
    def of(cls, rank: int, error: BaseException) -> Failure:
        """Describe `error`, which has just been caught on `rank`."""
        return cls(
            rank,
            type(error).__module__,
            type(error).__qualname__,
            str(error),
            getattr(error, "exit_code", 0),
            "".join(traceback.format_exception(error)),
        )

    @property
    def is_consequence(self) -> bool:
        """Whether the rank only noticed that another one had gone."""
        return not self.exit_code and _says_lost_peer(self.sentence)

    def error(self) -> BaseException:
        """Return what the command ends with: the rank's own error where a person can mend it, or
        interrupted it, else a `RuntimeError` with the rank and its traceback.
        """
        kind = getattr(importlib.import_module(self.module), self.kind, None)
        if isinstance(kind, type) and issubclass(kind, PersondetError | KeyboardInterrupt):
            return kind(self.sentence)
        return RuntimeError(f"rank {self.rank} failed with this error:\n\n{self.trace}")


def is_lost_peer(error: BaseException | None) -> bool:
    """Return whether `error` only says that another rank has gone, which tells its own error."""
    return isinstance(error, RuntimeError) and _says_lost_peer(str(error))


def _says_lost_peer(text: str) -> bool:
    return any(sign in text for sign in _LOST_PEER)


def report(store: dist.Store, failure: Failure) -> bool:
    """Write a failure down, and return whether it is the first one."""
    number = store.add("failures", 1)
    store.set(f"failure/{number}", json.dumps(asdict(failure)))
    return int(number) == 1


def read_failures(store: dist.Store) -> list[Failure]:
    """Return the failures that ranks have written down, in the order in which they came."""
    count = int(store.add("failures", 0))
    keys = [f"failure/{number}" for number in range(1, count + 1)]
    return [Failure(**json.loads(store.get(key))) for key in keys if store.check([key])]
