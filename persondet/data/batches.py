"""Which images make up a training batch: an endless stream that can be entered anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

StreamIndex = tuple[int, int]


class PositionSampler(Sampler[StreamIndex]):
    """Number the indices of a training sampler by their position in the stream of all ranks."""

    def __init__(self, sampler: Sampler[int], *, rank: int = 0, world_size: int = 1) -> None:
        """Wrap `sampler`, which yields every `world_size`-th index of the stream, from `rank`."""
        self.sampler = sampler
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[StreamIndex]:
        """Yield (position in the stream, index into the dataset)."""
        positions = itertools.count(self.rank, self.world_size)
        return zip(positions, (int(index) for index in self.sampler), strict=False)


class StreamBatches(Sampler[list[StreamIndex]]):
    """Batches of a stream, the same from any start on.

    What a batch holds is decided by the sizes in the dataset, before any image is read. To begin
    at batch k is to count the first k batches and drop them, which takes microseconds each.

    Attributes:
        start: the number of the first batch that an iteration yields.
    """

    def __init__(
        self, stream: PositionSampler, batch_size: int, *, is_wide: Sequence[bool] | None = None
    ) -> None:
        """Divide `stream` into batches of `batch_size`.

        Args:
            stream: yields (position, dataset index); the batches of this rank.
            batch_size: images per batch.
            is_wide: for each dataset index whether the image is wider than high; a batch then
                holds images of one kind, in the order in which Detectron2's
                `AspectRatioGroupedDataset` completes them. None: one after the other.
        """
        self.stream = stream
        self.batch_size = batch_size
        self.is_wide = is_wide
        self.start = 0

    def __iter__(self) -> Iterator[list[StreamIndex]]:
        """Yield batches of (position in the stream, index into the dataset)."""
        return itertools.islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[StreamIndex]]:
        waiting: tuple[list[StreamIndex], list[StreamIndex]] = ([], [])
        for where in self.stream:
            kind = waiting[self.is_wide is not None and self.is_wide[where[1]]]
            kind.append(where)
            if len(kind) == self.batch_size:
                batch = kind[:]
                kind.clear()
                yield batch
