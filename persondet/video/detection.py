"""The people in each frame of a clip: batches through the model, several at once on a CPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch

from persondet.environment import cpu_count
from persondet.video.io import VideoFrame

if TYPE_CHECKING:
    import numpy as np
    from detectron2.structures import Instances

Predict = Callable[[list[Any]], "list[Instances]"]
Waiting = deque[tuple[list[VideoFrame], "Future[list[Instances]]"]]


class FramePredictor(Protocol):
    """What a predictor must offer; `persondet.predictor.Predictor` does.

    Where it has `predict_frames`, which leaves the masks small, that is called instead. Where it
    has `workers`, as many batches are given to it at once, each from a thread of its own.
    """

    metadata: Any
    confidence_threshold: float
    model_file: str
    batch_size: int

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Return the people in each image: uint8, (H, W, 3), BGR."""


def detect_people(
    frames: Iterator[VideoFrame], predictor: FramePredictor, batch_size: int
) -> Iterator[tuple[VideoFrame, Instances]]:
    """Yield each frame with the people in it, in order.

    Which frames share a batch does not depend on timing, so the same clip gives the same people.

    Args:
        frames: of one clip.
        predictor: finds the people.
        batch_size: frames per forward pass; the last batch may be smaller.
    """
    predict: Predict = getattr(predictor, "predict_frames", predictor.predict_batch)
    workers = getattr(predictor, "workers", 1)
    if workers == 1:
        for batch in _batches(frames, batch_size):
            yield from zip(batch, predict([frame.image for frame in batch]), strict=True)
        return
    # One thread per batch needs no meeting after each layer, which costs most where other stages
    # keep the cores busy.
    threads, each = torch.get_num_threads(), max(1, cpu_count() // workers)
    pool = ThreadPoolExecutor(workers, "persondet-model", torch.set_num_threads, (each,))
    waiting: Waiting = deque()
    try:
        batches = _batches(frames, batch_size)
        yield from _side_by_side(batches, predict, pool, waiting, workers + 1)
    finally:
        _end(pool, waiting)
        torch.set_num_threads(threads)  # what a worker sets holds for threads yet to come


def _batches(frames: Iterator[VideoFrame], size: int) -> Iterator[list[VideoFrame]]:
    while batch := list(islice(frames, size)):
        yield batch


def _side_by_side(
    batches: Iterator[list[VideoFrame]],
    predict: Predict,
    pool: ThreadPoolExecutor,
    waiting: Waiting,
    ahead: int,
) -> Iterator[tuple[VideoFrame, Instances]]:
    """Yield the results in order while the next batches are in work, at most `ahead` of them.

    Args:
        waiting: gets what is in work.
    """
    for batch in batches:
        waiting.append((batch, pool.submit(predict, [frame.image for frame in batch])))
        if len(waiting) == ahead:
            yield from _first(waiting)
    while waiting:
        yield from _first(waiting)


def _first(waiting: Waiting) -> Iterator[tuple[VideoFrame, Instances]]:
    """Take the first batch out, once it is ready."""
    batch, people = waiting[0]
    found = people.result()
    waiting.popleft()
    return zip(batch, found, strict=True)


def _end(pool: ThreadPoolExecutor, waiting: Waiting) -> None:
    """End the threads when they are done with what they work on, also after a further Ctrl-C."""
    interruption: KeyboardInterrupt | None = None
    pool.shutdown(wait=False, cancel_futures=True)
    while not all(people.done() for _, people in waiting):
        try:
            wait(people for _, people in waiting)
        except KeyboardInterrupt as again:
            interruption = again
    pool.shutdown()
    if interruption is not None:
        raise interruption
