"""A trained model's clip beside the serial way: time, and whether both find the same people."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import Instances, pairwise_iou

from persondet.benchmarks.pairs import interleaved
from persondet.benchmarks.stock_video import build_stock_predictor, stock_annotate
from persondet.inference.predictor import Predictor, run_cfg
from persondet.modeling.precision import resolve_dtype
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader

_SAME = 0.9  # intersection over union of two boxes of one person


def real_model(
    run: str, clip: str, folder: str, dtype: str, pairs: int, frames: int, cores: int
) -> dict[str, Any]:
    """Time a trained model on a clip, both sides on the same cores of the CPU.

    Call it in a process of its own: the cores it may use are set for good.

    Args:
        run: folder or checkpoint.
        clip: to annotate.
        folder: for the annotated clips.
        dtype: of our side, as in `SOLVER.AMP.DTYPE`; the stock side computes in float32.
        pairs: turns of each side, after one that is not timed.
        frames: of the clip.
        cores: that both sides may use.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(min(cores, torch.get_num_threads()))
    predictor = Predictor(_config(run, "cpu", dtype))
    stock = build_stock_predictor(_config(run, "cpu", "float32"), predictor.confidence_threshold)
    ours = partial(_annotate, clip, Path(folder) / "ours.mp4", predictor, frames)
    theirs = partial(stock_annotate, clip, f"{folder}/stock.mp4", stock, predictor.metadata, frames)
    times = interleaved(ours, theirs, pairs=pairs)
    with VideoReader(clip) as reader:
        images = [frame.image for frame, _ in zip(reader, range(frames), strict=False)]
    mine = [predictor.predict_frames([image])[0] for image in images]
    return {
        **times.as_json(),
        **people_apart(mine, [stock(image)["instances"] for image in images]),
        "frames": frames,
        "cores": cores,
        "dtype": str(resolve_dtype(predictor.cfg)).removeprefix("torch."),
    }


def people_apart(ours: list[Instances], stock: list[Instances]) -> dict[str, float]:
    """Compare the people of the same frames, paired by their boxes.

    Returns: `box_apart` (largest distance between two edges, pixels), `score_apart` (largest
    difference), `matched` (share of all people of both sides who are on both).
    """
    boxes = scores = 0.0
    matched = total = 0
    for mine, theirs in zip(ours, stock, strict=True):
        total += len(mine) + len(theirs)
        if not len(mine) or not len(theirs):
            continue
        overlap = pairwise_iou(mine.pred_boxes, theirs.pred_boxes)
        best = overlap.argmax(dim=1)
        for i, j in enumerate(best.tolist()):
            if overlap[i, j] < _SAME or int(overlap[:, j].argmax()) != i:
                continue
            matched += 2
            apart = mine.pred_boxes.tensor[i] - theirs.pred_boxes.tensor[j]
            boxes = max(boxes, float(apart.abs().max()))
            scores = max(scores, abs(float(mine.scores[i]) - float(theirs.scores[j])))
    return {
        "box_apart": boxes,
        "score_apart": scores,
        "matched": matched / total if total else 1.0,
    }


def gpu_overhead(
    run: Path, clip: Path, folder: Path, pairs: int, frames: int
) -> dict[str, Any] | None:
    """Time the whole pipeline against the model alone on a GPU; None where there is none.

    The model alone gets frames that are decoded already, in the same batches.
    """
    if not torch.cuda.is_available():
        return None
    predictor = Predictor(_config(str(run), "cuda", "auto"))
    with VideoReader(clip) as reader:
        images = [frame.image for frame, _ in zip(reader, range(frames), strict=False)]
    batches = [
        images[start : start + predictor.batch_size]
        for start in range(0, len(images), predictor.batch_size)
    ]

    def alone() -> None:
        for batch in batches:
            predictor.predict_frames(batch)
        torch.cuda.synchronize()

    whole = partial(_annotate, str(clip), folder / "gpu.mp4", predictor, frames)
    times = interleaved(alone, whole, pairs=pairs)
    return times.as_json() | {"frames": len(images)}


def _annotate(clip: str, target: Path, predictor: Predictor, frames: int) -> None:
    annotate_video(clip, target, predictor, max_frames=frames, overwrite=True)


def _config(run: str, device: str, dtype: str) -> CfgNode:
    cfg = run_cfg(run)
    cfg.MODEL.DEVICE = device
    cfg.SOLVER.AMP.DTYPE = dtype
    return cfg
