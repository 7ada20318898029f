"""How fast predictions become scores beside Detectron2's own evaluator, and in how much memory."""

from __future__ import annotations

import contextlib
import io
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.evaluation import COCOEvaluator

from persondet.benchmarks.pairs import PairedTimes, Progress, Seconds, interleaved
from persondet.benchmarks.scored_images import (
    PEOPLE,
    Scene,
    make_scenes,
    predictions,
    write_ground_truth,
)
from persondet.benchmarks.stock_evaluate import (
    build_stock_evaluator,
    register,
    stock_postprocess,
)
from persondet.errors import PersondetError
from persondet.evaluation.evaluator import RoboflowCOCOEvaluator
from persondet.inference.masks import encoded_masks
from persondet.modeling.roi_masks import roi_postprocess

_DATASET = "persondet_benchmark"
_ENCODED_IMAGES = 200  # enough for the row that looks at masks alone
_BEFORE = 64  # images before memory is looked at, so that everything is loaded
Build = Callable[[str], COCOEvaluator]


def benchmark_evaluate(
    *, pairs: int = 10, images: int = 5000, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure `process()` and `evaluate()` of our evaluator against Detectron2's, in turns.

    Both get the same predictions: ten people on each image of 640 x 480 pixels, boxes, scores and
    pasted masks. Both score boxes and masks and write the predictions to a file; ours adds the
    intervals. Making the predictions is not timed, building the evaluators is not either.

    Args:
        pairs: turns of each side, after one that is not timed.
        images: to score.
        progress: called with the turns done and of all.

    Returns: `both` (process and evaluate), `evaluate` (alone) and `encode` (from the mask head's
    output to COCO's code, `encoded_images` of them): the statistics of `PairedTimes`, ours the
    first side; `memory`: `ours` and `stock` (MB, the most that a process of its own grows by over
    the images, `evaluate()` included) and `ratio`; `apart`: the largest difference between two
    scores, points; `images`, `masks_per_image`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        scenes = make_scenes()
        write_ground_truth(folder / "truth.json", scenes, images)
        _register(folder / "truth.json")
        ours = _Side(partial(_our_evaluator, _DATASET), scenes, images, folder / "ours")
        stock = _Side(partial(build_stock_evaluator, _DATASET), scenes, images, folder / "stock")
        both = interleaved(ours.turn, stock.turn, pairs=pairs, progress=progress)
        alone = PairedTimes(tuple(ours.evaluated[-pairs:]), tuple(stock.evaluated[-pairs:]))
        several = min(images, _ENCODED_IMAGES)
        encode = interleaved(
            partial(_encode_ours, scenes, several),
            partial(_encode_stock, scenes, several, folder / "stock"),
            pairs=pairs,
        )
        grown = {
            name: _in_own_process(name, folder / "truth.json", images, folder / name)
            for name in ("ours", "stock")
        }
    return {
        "images": images,
        "masks_per_image": PEOPLE,
        "both": both.as_json(),
        "evaluate": alone.as_json(),
        "encode": encode.as_json(),
        "encoded_images": several,
        "memory": {**grown, "ratio": grown["ours"] / grown["stock"]},
        "apart": _apart(ours.scores, stock.scores),
    }


class _Side:
    """One evaluator: each turn scores all images with a new one."""

    def __init__(self, build: Build, scenes: list[Scene], images: int, folder: Path) -> None:
        self.build, self.scenes, self.images, self.folder = build, scenes, images, folder
        self.evaluated: list[float] = []
        self.scores: dict[str, Any] = {}

    def turn(self) -> Seconds:
        """Score all images and return the seconds of `process()` and `evaluate()` together."""
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its table
            evaluator = self.build(str(self.folder))
            evaluator.reset()
            processed = 0.0
            for asked, result in predictions(self.scenes, self.images):
                start = time.perf_counter()
                evaluator.process([asked], [{"instances": result}])
                processed += time.perf_counter() - start
            start = time.perf_counter()
            self.scores = dict(evaluator.evaluate())
            self.evaluated.append(time.perf_counter() - start)
        return Seconds(processed + self.evaluated[-1])


def _our_evaluator(name: str, output_dir: str) -> RoboflowCOCOEvaluator:
    return RoboflowCOCOEvaluator(
        name, masks=True, output_dir=output_dir, distributed=False, intervals=True
    )


def _encode_ours(scenes: list[Scene], images: int) -> Seconds:
    seconds = 0.0
    for asked, result in predictions(scenes, images, raw=True):
        start = time.perf_counter()
        encoded_masks(roi_postprocess(result, asked["height"], asked["width"]))
        seconds += time.perf_counter() - start
    return Seconds(seconds)


def _encode_stock(scenes: list[Scene], images: int, folder: Path) -> Seconds:
    evaluator = build_stock_evaluator(_DATASET, str(folder))
    evaluator.reset()
    seconds = 0.0
    for asked, result in predictions(scenes, images, raw=True):
        start = time.perf_counter()
        pasted = stock_postprocess(result, asked["height"], asked["width"])
        evaluator.process([asked], [{"instances": pasted}])
        seconds += time.perf_counter() - start
    return Seconds(seconds)


def _apart(ours: dict[str, Any], stock: dict[str, Any]) -> float:
    """Return the largest difference between the scores that both have, points."""
    return max(
        abs(ours[task][metric] - value)
        for task in ("bbox", "segm")
        for metric, value in stock[task].items()
        if not math.isnan(value)
    )


def _register(json_file: Path) -> None:
    with contextlib.suppress(AssertionError):  # an earlier benchmark of this process has
        register(_DATASET, str(json_file))


def _in_own_process(side: str, json_file: Path, images: int, folder: Path) -> float:
    """Return by how much a side's memory grows at most, MB."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_grow, args=(side, json_file, images, folder, sender))
    process.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError:
        raise PersondetError(f"the process that measures the memory of {side} was ended.") from None
    finally:
        process.join()


def _grow(side: str, json_file: Path, images: int, folder: Path, sender: Any) -> None:
    _register(json_file)
    build: Build = partial(_our_evaluator if side == "ours" else build_stock_evaluator, _DATASET)
    scenes = make_scenes()
    # The small turn loads what is loaded once.
    _Side(build, scenes, min(_BEFORE, images), folder).turn()
    evaluator = build(str(folder))
    evaluator.reset()
    before = _memory_mb("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    with contextlib.redirect_stdout(io.StringIO()):
        for asked, result in predictions(scenes, images):
            evaluator.process([asked], [{"instances": result}])
        evaluator.evaluate()
    sender.send(_memory_mb("VmHWM") - before)


def _memory_mb(what: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)[what].split()[0]) * 1024 / 1e6
