"""What training keeps when hardly two images have the same size, bounded as by the tools or not."""

import os
from unittest import mock

import numpy as np
from bm_pairs import Progress, Row, in_own_process, memory_mb

_BOUND = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_SHORTEST, _LONGEST = 160, 300
_STEPS, _WARM = 250, 200


def main(*, pairs: int = 10, progress: Progress | None = None, images: int = 100) -> dict[str, Row]:
    """Measure the memory of a process that trains the CPU config, two images a step.

    Args:
        pairs: without effect, one process of 250 steps is one measurement.
        progress: called with the measurements done and of all.
        images: different sizes, each edge from 160 to 300 pixels.

    Returns: for the bound that the tools set on oneDNN's cache and for its own default `warm` and
    `end`, megabytes after 200 and 250 steps.
    """
    found: dict[str, Row] = {}
    for name, capacity in (("tools", os.environ[_BOUND]), ("default", "1024")):
        with mock.patch.dict(os.environ, {_BOUND: capacity}):
            warm, end = in_own_process(_measure, images)
        found[name] = {
            "what": f"memory of training on {images} sizes, {capacity} layers kept by oneDNN: "
            f"after {_WARM} and {_STEPS} steps",
            "warm": warm,
            "end": end,
            "details": f"{warm:.0f} MB, {end:.0f} MB",
        }
        if progress is not None:
            progress(len(found), 2)
    return found


def _measure(images: int) -> tuple[float, float]:
    from bm_train import CPU_CONFIG, prepared, random_sample
    from detectron2.utils.events import EventStorage

    trainer, _ = prepared(CPU_CONFIG, "float32", size=_SHORTEST, batch_size=1)
    rng = np.random.default_rng(0)
    sizes = rng.integers(_SHORTEST, _LONGEST, (images, 2))
    trainer._data_loader_iter_obj = iter(
        [
            random_sample(rng, (int(w), int(h)))
            for w, h in sizes.take((step, step + 1), 0, mode="wrap")
        ]
        for step in range(0, 2 * _STEPS, 2)
    )
    kept = []
    with EventStorage(0):
        for trainer.iter in range(_STEPS):
            trainer.run_step()
            if trainer.iter + 1 in (_WARM, _STEPS):
                kept.append(memory_mb(peak=False))
    return kept[0], kept[1]
