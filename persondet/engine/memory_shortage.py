"""Out of memory, in one sentence: which keys to lower, and what they are now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode

from persondet.errors import TrainingError
from persondet.modeling.precision import resolve_dtype

# What the sentences of others say, from the particular to the general.
_SAID = {
    "shared": r"Bus error|out of shared memory|unable to (write to file|open shared memory|mmap)",
    "killed": r"DataLoader worker .*(is killed by signal: Killed|exited unexpectedly)",
    "process": r"DefaultCPUAllocator: (can't|not enough)|could not allocate|Failed to allocate",
    "device": r"out of memory|CUDNN_STATUS_ALLOC_FAILED|CUBLAS_STATUS_ALLOC_FAILED",
}


def is_memory_shortage(error: BaseException | None) -> bool:
    """Return whether `error` means that the memory of a device, a process or /dev/shm ran out."""
    return _kind(error) is not None


def memory_shortage(error: BaseException, cfg: CfgNode, *, training: bool) -> TrainingError | None:
    """Return what to say when `error` means that memory ran out; None when it means else.

    Args:
        training: the keys that a training step depends on, and not those of inference.
    """
    workers = f"DATALOADER.NUM_WORKERS ({cfg.DATALOADER.NUM_WORKERS} now)"
    sizes = _sizes(cfg, training)
    sentences = {
        "shared": "the loader's workers ran out of shared memory (/dev/shm); lower "
        f"{workers}, to 0 if need be, or enlarge /dev/shm (Docker: --shm-size 2g)",
        "killed": "a worker of the loader was killed, most likely because the machine's memory "
        f"ran out; lower {workers}, {sizes}",
        "device": f"{cfg.MODEL.DEVICE}: out of memory; lower {sizes}{_precision(cfg, training)}",
        "process": f"the machine's memory ran out; lower {sizes}, or {workers}"
        f"{_precision(cfg, training)}",
    }
    kind = _kind(error)
    return None if kind is None else TrainingError(f"{sentences[kind]}.")


def _kind(error: BaseException | None) -> str | None:
    if isinstance(error, torch.OutOfMemoryError):
        return "device"
    if isinstance(error, MemoryError):
        return "process"
    # What torch and its loader raise as RuntimeError, and OpenCV as an error of its own.
    if not isinstance(error, RuntimeError) and type(error).__module__ != "cv2":
        return None
    return next((kind for kind, said in _SAID.items() if re.search(said, str(error))), None)


@contextmanager
def memory_in_one_sentence(cfg: CfgNode, *, training: bool) -> Iterator[None]:
    """Let an error that means "out of memory" leave the block as one sentence.

    Raises: TrainingError: naming the keys to lower with their values.
    """
    try:
        yield
    except Exception as error:
        shortage = memory_shortage(error, cfg, training=training)
        if shortage is None:
            raise
        raise shortage from error


def _sizes(cfg: CfgNode, training: bool) -> str:
    split = "TRAIN" if training else "TEST"
    keys = [f"INPUT.MIN_SIZE_{split}", f"INPUT.MAX_SIZE_{split}"]
    values = [cfg.INPUT[key.partition(".")[2]] for key in keys]
    shown = [f"{key} ({value} now)" for key, value in zip(keys, values, strict=True)]
    if training:
        shown.insert(0, f"SOLVER.IMS_PER_BATCH ({cfg.SOLVER.IMS_PER_BATCH} now)")
    return f"{', '.join(shown[:-1])} or {shown[-1]}"


def _precision(cfg: CfgNode, training: bool) -> str:
    if not training or resolve_dtype(cfg) != torch.float32:
        return ""
    key = "AMP.DTYPE bfloat16" if cfg.SOLVER.AMP.ENABLED else "AMP.ENABLED True"
    return f", or set SOLVER.{key}: the features take half (float32 now)"
