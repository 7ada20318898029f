"""How fast predictions become scores beside Detectron2's own evaluator, and in how much memory."""

import contextlib
import io
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bm_pairs import Progress, Row, Seconds, Turns, in_own_process, medians, memory_mb, statistics
from bm_scenes import PEOPLE, boxes_of, coco_of, outlines, raw_result
from bm_stock import build_stock_evaluator, register
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances

from persondet.evaluation.evaluator import RoboflowCOCOEvaluator
from persondet.inference.masks import encoded_masks
from persondet.modeling.detections import roi_postprocess

_DATASET = "persondet_benchmark"
_SIZE = (640, 480)  # COCO's usual image
_KINDS = 32  # images that differ; the others repeat them under other ids, with other scores
_ENCODED_IMAGES = 200  # enough for the row that looks at masks alone
_BEFORE = 64  # images before memory is looked at, so that everything is loaded
_Build = Callable[[str, str], COCOEvaluator]
_Work = Callable[[dict[str, Any], Instances], Any]


def main(
    *, pairs: int = 10, images: int = 5000, progress: Progress | None = None
) -> dict[str, Row]:
    """Measure `process()` and `evaluate()` of our evaluator against Detectron2's, in turns.

    Both get the same predictions: ten people on each image of 640 x 480 pixels, boxes, scores and
    pasted masks. Both score boxes and masks and write the predictions to a file; ours adds the
    intervals. Making the predictions is not timed, building the evaluators is not either.
    """
    turns = Turns(pairs, rows=2, progress=progress)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _register(folder / "truth.json", images)
        ours = _Side(_our_evaluator, images, folder / "ours")
        stock = _Side(build_stock_evaluator, images, folder / "stock")
        both = turns.time(ours.turn, stock.turn)
        alone = statistics(ours.evaluated[-pairs:], stock.evaluated[-pairs:])
        several = min(images, _ENCODED_IMAGES)
        encode = turns.time(
            lambda: _seconds(several, _encoded_by_us, raw=True),
            lambda: _seconds(several, _encoded_by_stock(), raw=True),
        )
        grown = {
            name: in_own_process(_grow, build, folder / f"{name}.json", images, folder / name)
            for name, build in (("ours", _our_evaluator), ("stock", build_stock_evaluator))
        }
    apart = max(
        abs(ours.scores[task][metric] - value)
        for task in ("bbox", "segm")
        for metric, value in stock.scores[task].items()
        if not math.isnan(value)
    )
    what = f"process() and evaluate(), {images} images with {PEOPLE} masks each, against "
    what += "COCOEvaluator with pycocotools"
    told = [medians(times, "{:.2f} s") for times in (both, alone, encode)]
    told[0] += f", scores within {apart:.4f} points"
    told[2] += f" for {several} images"
    return {
        "both": {"what": what, "details": told[0], "apart": apart, **both},
        "evaluate": {"what": "evaluate() alone", "details": told[1], **alone},
        "encode": {"what": "from the mask head's output to COCO's code", "details": told[2]}
        | encode,
        "memory": {
            "what": f"memory that grows over {images} images",
            "details": "{ours:.0f} MB, {stock:.0f} MB".format(**grown),
            "ratio": grown["ours"] / max(grown["stock"], 1e-9),
            **grown,
        },
    }


def _encoded_by_us(asked: dict[str, Any], raw: Instances) -> None:
    encoded_masks(roi_postprocess(raw, asked["height"], asked["width"]))


def _encoded_by_stock() -> _Work:
    evaluator = build_stock_evaluator(_DATASET, "")
    evaluator.reset()

    def work(asked: dict[str, Any], raw: Instances) -> None:
        pasted = detector_postprocess(raw, asked["height"], asked["width"])
        evaluator.process([asked], [{"instances": pasted}])

    return work


def _people() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [outlines(rng, _SIZE) for _ in range(_KINDS)]


def _register(json_file: Path, images: int) -> None:
    kinds = _people()
    crowd = [kinds[image_id % _KINDS] for image_id in range(1, images + 1)]
    json_file.write_text(json.dumps(coco_of(crowd, _SIZE)), encoding="utf-8")
    register(_DATASET, str(json_file))


def _results(*, raw: bool) -> list[Instances]:
    """Return a result for each kind of image, the same at every call.

    `raw`: the mask head's output (`pred_masks` float32, (N, 1, 28, 28)) instead of whole masks.
    """
    rng, results = np.random.default_rng(1), []
    for people in _people():
        boxes = boxes_of(people)
        boxes += rng.normal(0, 0.03, boxes.shape) * (boxes[:, 3:] - boxes[:, 1:2])
        results.append(raw_result(np.clip(boxes, 0, [*_SIZE, *_SIZE]), np.ones(PEOPLE), _SIZE))
    return results if raw else [detector_postprocess(one, *one.image_size) for one in results]


class _Side:
    """One evaluator: each turn scores all images with a new one."""

    def __init__(self, build: _Build, images: int, folder: Path) -> None:
        self.build, self.images, self.folder = build, images, folder
        self.evaluated: list[float] = []
        self.scores: dict[str, Any] = {}

    def turn(self) -> Seconds:
        """Score all images and return the seconds of `process()` and `evaluate()` together."""
        evaluator = self.build(_DATASET, str(self.folder))
        evaluator.reset()
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its table
            processed = _seconds(
                self.images,
                lambda asked, result: evaluator.process([asked], [{"instances": result}]),
            )
            start = time.perf_counter()
            self.scores = dict(evaluator.evaluate())
            self.evaluated.append(time.perf_counter() - start)
        return Seconds(processed + self.evaluated[-1])


def _seconds(images: int, work: _Work, *, raw: bool = False) -> Seconds:
    """Return how long the work on all results takes, without the making of the results."""
    results, rng, seconds = _results(raw=raw), np.random.default_rng(2), 0.0
    for image_id in range(1, images + 1):
        drawn = -np.sort(-rng.uniform(0.05, 1.0, PEOPLE)).astype(np.float32)
        asked = dict(zip(("image_id", "width", "height"), (image_id, *_SIZE), strict=True))
        result = Instances(_SIZE[::-1], **results[image_id % _KINDS].get_fields())
        result.scores = torch.from_numpy(drawn)
        start = time.perf_counter()
        work(asked, result)
        seconds += time.perf_counter() - start
    return Seconds(seconds)


def _our_evaluator(name: str, output_dir: str) -> COCOEvaluator:
    return RoboflowCOCOEvaluator(
        name, masks=True, output_dir=output_dir, distributed=False, intervals=True
    )


def _grow(build: _Build, json_file: Path, images: int, folder: Path) -> float:
    """Return by how much this process grows at most while it scores the images, MB."""
    _register(json_file, images)
    # The small turn loads what is loaded once.
    _Side(build, min(_BEFORE, images), folder).turn()
    side = _Side(build, images, folder)
    before = memory_mb(peak=False)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    side.turn()
    return memory_mb(peak=True) - before
