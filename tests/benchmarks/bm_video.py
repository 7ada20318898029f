"""How fast a clip is annotated beside the serial way with Detectron2 and OpenCV alone."""

import importlib.util
import os
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import cv2
import numpy as np
import torch
from bm_pairs import Progress, Row, Seconds, Turns, in_own_process, medians, memory_mb
from bm_scenes import (
    PEOPLE,
    SIZE,
    SimulatedPredictor,
    background,
    raw_people,
    same_objects,
    small_masks,
    write_street,
)
from bm_stock import build_stock_predictor, stock_annotate, stock_draw
from detectron2.data.catalog import Metadata
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer

from persondet.export import exact_predictor, write_model
from persondet.inference.masks import paste_regions
from persondet.inference.predictor import Predictor, run_cfg
from persondet.modeling.precision import resolve_dtype
from persondet.onnx_predictor import OnnxPredictor
from persondet.video.pipeline import annotate_video
from persondet.video.reader import VideoReader
from persondet.visualization.visualizer import PersonVideoVisualizer

MODEL_SECONDS = 0.015  # of the simulated model, per frame
_DRAWN_FRAMES = 12  # of one turn of paste and draw
_GROWTH_FRAMES = (100, 3000)
_GROWTH_SIZE = (640, 360)
_CORES = 2
_METADATA = Metadata(name="persondet_benchmark_video", thing_classes=["person"])


def main(
    *,
    pairs: int = 10,
    images: int = 60,
    run: Path | None = None,
    clip: Path | None = None,
    yolo: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Row]:
    """Measure drawing and whole clips against `DefaultPredictor`, `VideoVisualizer`, `VideoWriter`.

    Both sides get the same frames and find the same people. Ours also tracks them, writes records
    and makes H.264; the stock side makes what pip's OpenCV can, `mp4v`.

    Args:
        run: folder or checkpoint of a trained model; without one, its rows are left out, and
            without onnx those of the exported file.
        clip: that the trained model annotates.
        yolo: the python of an environment with Ultralytics, for a row on one frame.
    """
    turns = Turns(pairs, rows=2, progress=progress)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = {"draw": _draw(turns), "simulated": _simulated(folder, turns, images)}
        if run is not None and clip is not None:
            rest = (str(run), str(clip), folder, pairs, images)
            for name, dtype in (("exact", "float32"), ("default", "auto")):
                found[name] = in_own_process(_real_model, dtype, *rest)
            for threads in (1, _CORES) if importlib.util.find_spec("onnx") else ():
                found[f"onnx {threads}"] = in_own_process(_exported, threads, *rest[:2], pairs)
            for threads in (1, _CORES) if yolo else ():
                given = (str(yolo), threads, str(run), str(clip), pairs)
                found[f"yolo {threads}"] = in_own_process(_against_yolo, *given)
        for row in found.values():
            each = "{:.1f} ms/frame"
            told = medians(row, each, lambda seconds: 1000 * seconds / row["frames"])  # noqa: B023
            row["details"] = told + row.get("details", "")
        found["memory"] = in_own_process(_growth, folder)
    return found


def _draw(turns: Turns) -> dict[str, Any]:
    """Time pasting and drawing on frames of a clip."""
    image = background(np.random.default_rng(0), SIZE)
    results = [raw_people(index) for index in range(_DRAWN_FRAMES)]

    def ours() -> None:
        visualizer = PersonVideoVisualizer(_METADATA)
        for result in results:
            visualizer.draw_on(image.copy(), paste_regions(small_masks(result)))

    def stock() -> None:
        visualizer = VideoVisualizer(_METADATA)
        for result in results:
            stock_draw(visualizer, image, detector_postprocess(result, *result.image_size))

    what = f"paste and draw, 1280 x 720, {PEOPLE} people, against VideoVisualizer"
    return {"what": what, "frames": _DRAWN_FRAMES, **turns.time(ours, stock)}


def _simulated(folder: Path, turns: Turns, frames: int) -> dict[str, Any]:
    """Time a whole clip with a model that leaves the processor alone."""
    source = write_street(folder / "street.mp4", frames, SIZE)

    def ours() -> None:
        predictor = SimulatedPredictor(_METADATA, MODEL_SECONDS)
        annotate_video(source, folder / "ours.mp4", predictor, overwrite=True)

    def stock() -> None:
        raw = SimulatedPredictor(_METADATA, MODEL_SECONDS).raw

        def predict(image: np.ndarray) -> dict[str, Any]:
            return {"instances": detector_postprocess(raw(image), *image.shape[:2])}

        stock_annotate(str(source), str(folder / "stock.mp4"), predict, _METADATA, frames)

    what = "whole clip with a simulated model of 15 ms, H.264, against the serial way"
    return {"what": what, "frames": frames, **turns.time(ours, stock)}


def _growth(folder: Path) -> dict[str, Any]:
    """Return by how much this process grows while it annotates a long clip, MB."""
    first, last = _GROWTH_FRAMES
    source = write_street(folder / "long.mp4", last, _GROWTH_SIZE)
    resident: dict[int, float] = {}

    def look(done: int, _: int | None) -> None:
        resident[done] = memory_mb(peak=False)

    predictor = SimulatedPredictor(_METADATA, 0.0)
    annotate_video(source, folder / "long_annotated.mp4", predictor, progress=look)
    grown = resident[last] - resident[first]
    what = f"memory growth from frame {first} to {last}"
    return {"what": what, "details": f"{grown:.1f} MB", "grown_mb": grown}


def _real_model(
    dtype: str, run: str, clip: str, folder: Path, pairs: int, frames: int
) -> dict[str, Any]:
    """Time a trained model on a clip, both sides on the same cores of the CPU, ours in `dtype`.

    Call it in a process of its own: the cores it may use are set for good.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_CORES])
    torch.set_num_threads(_CORES)
    cfg = run_cfg(run)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE = "cpu", dtype
    predictor = Predictor(cfg)
    stock = build_stock_predictor(cfg, predictor.confidence_threshold)
    mp4 = folder / "ours.mp4"
    times = Turns(pairs, rows=1).time(
        partial(annotate_video, clip, mp4, predictor, overwrite=True, max_frames=frames),
        partial(stock_annotate, clip, str(mp4), stock, predictor.metadata, frames),
    )
    with VideoReader(clip) as reader:
        images = [frame.image for frame, _ in zip(reader, range(frames), strict=False)]
    mine = [predictor.predict_frames([image])[0] for image in images]
    apart = _people_apart(mine, [stock(image)["instances"] for image in images])
    own_type = str(resolve_dtype(predictor.cfg)).removeprefix("torch.")
    return {
        "what": f"whole clip, the trained model ({own_type}, {_CORES} cores), against the serial "
        "way",
        "details": f", {100 * apart['matched']:.1f} % of the people on both, boxes within "
        f"{apart['box_apart']:.2f} px, scores within {apart['score_apart']:.3f}",
        "frames": len(images),
        **times,
        **apart,
    }


def _exported(threads: int, run: str, clip: str, pairs: int) -> dict[str, Any]:
    """Time a trained model as an ONNX file beside itself in PyTorch, both in float32."""
    predictor = exact_predictor(run)
    with tempfile.TemporaryDirectory() as folder:
        write_model(predictor, Path(folder) / "model.onnx")
        exported = OnnxPredictor(Path(folder) / "model.onnx", threads=threads)
    torch.set_num_threads(threads)
    frames = [_small_frame(clip)]
    times = Turns(pairs, rows=1).time(
        lambda: exported.predict_frames(frames), lambda: predictor.predict_frames(frames)
    )
    faster = "the file in ONNX Runtime" if times["ratio"] > 1 else "the model in PyTorch"
    what = f"one frame of 640 x 360, {threads} thread(s), the exported file against the model"
    return {"what": what, "details": f", {faster} is faster", "frames": 1, **times}


# Ultralytics limits its threads when it first predicts, so they are set after that.
_YOLO = """
import sys, time, numpy, torch
from ultralytics import YOLO
model, frame = YOLO("yolo11n-seg.yaml"), numpy.load(sys.argv[1])
def predict(): model.predict(frame, imgsz=640, device="cpu", verbose=False)
predict()
torch.set_num_threads(int(sys.argv[2]))
print("ready", file=sys.stderr, flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    predict()
    print(time.perf_counter() - start, file=sys.stderr, flush=True)
"""


def _against_yolo(python: str, threads: int, run: str, clip: str, pairs: int) -> dict[str, Any]:
    """Time a trained model and YOLO11n-seg of random weights, which finds nobody, on one frame."""
    cfg = run_cfg(run)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.DTYPE = "cpu", "float32"
    predictor = Predictor(cfg)
    torch.set_num_threads(threads)
    frame = _small_frame(clip)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, frame)
        file.flush()
        command = [python, "-c", _YOLO, file.name, str(threads)]
        with subprocess.Popen(
            command, text=True, stdin=PIPE, stdout=subprocess.DEVNULL, stderr=PIPE
        ) as yolo:
            ask, answer = yolo.stdin, yolo.stderr
            assert ask is not None and answer is not None
            while answer.readline() not in ("ready\n", ""):  # its warnings
                pass

            def theirs() -> Seconds:
                ask.write("\n")
                ask.flush()
                return Seconds(answer.readline())

            times = Turns(pairs, rows=1).time(lambda: predictor.predict_frames([frame]), theirs)
            people = len(predictor.predict_frames([frame])[0])
            ask.close()
    what = f"one frame of 640 x 360, {threads} thread(s), against Ultralytics' yolo11n-seg"
    return {"what": what, "details": f", {people} people", "frames": 1, **times}


def _small_frame(clip: str) -> np.ndarray:
    with VideoReader(clip) as reader:
        return cv2.resize(next(iter(reader)).image, (640, 360), interpolation=cv2.INTER_AREA)


def _people_apart(ours: list[Instances], stock: list[Instances]) -> dict[str, float]:
    """Compare the people of the same frames, paired by their boxes."""
    boxes, scores = [0.0], [0.0]
    for mine, theirs in zip(ours, stock, strict=True):
        for i, j in same_objects(mine.pred_boxes, theirs.pred_boxes, 0.9):
            apart = mine.pred_boxes.tensor[i] - theirs.pred_boxes.tensor[j]
            boxes.append(float(apart.abs().max()))
            scores.append(abs(float(mine.scores[i] - theirs.scores[j])))
    matched = 2 * (len(boxes) - 1) / max(1, sum(map(len, [*ours, *stock])))
    return {"box_apart": max(boxes), "score_apart": max(scores), "matched": matched}
