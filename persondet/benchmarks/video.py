"""How fast a clip is annotated beside the serial way with Detectron2 and OpenCV alone."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data.catalog import Metadata
from detectron2.utils.video_visualizer import VideoVisualizer

from persondet.benchmarks.pairs import Progress, interleaved, part_of
from persondet.benchmarks.stock_video import stock_annotate, stock_draw, stock_paste
from persondet.benchmarks.video_scene import (
    PEOPLE,
    SimulatedPredictor,
    raw_people,
    small_masks,
    street,
    write_street,
)
from persondet.errors import PersondetError
from persondet.inference.masks import paste_regions
from persondet.video.pipeline import annotate_video
from persondet.visualization.visualizer import PersonVideoVisualizer

WIDTH, HEIGHT = 1280, 720
MODEL_SECONDS = 0.015  # of the simulated model, per frame
_DRAWN_FRAMES = 12  # of one turn of paste and draw
_GROWTH_FRAMES = (100, 3000)
_GROWTH_SIZE = (640, 360)
_CORES = 2


def benchmark_video(
    *,
    pairs: int = 10,
    frames: int = 60,
    run: Path | None = None,
    clip: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure drawing and whole clips against `DefaultPredictor`, `VideoVisualizer`, `VideoWriter`.

    Both sides get the same frames and find the same people. Ours also tracks them, writes records
    and makes H.264; the stock side makes what pip's OpenCV can, `mp4v`.

    Args:
        pairs: turns of each side, after one that is not timed.
        frames: of each clip.
        run: folder or checkpoint of a trained model; without one, its rows are left out.
        clip: that the trained model annotates.
        progress: called with the turns done and of all.

    Returns: `draw` (paste and draw), `simulated` (a model of 15 ms), and with a run `exact` and
    `default` (the trained model in float32 and in its own type, on two cores): statistics of
    `PairedTimes`, ours the first side, the latter two with `frames`, `box_apart` (pixels),
    `score_apart`, `matched` (share of people that both sides have); on a GPU `gpu` (`ratio`: with
    all that is around the model over the model alone); `memory` (`grown_mb` between the frames
    `from` and `to`).
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found: dict[str, Any] = {
            "people": PEOPLE,
            "draw": _draw(pairs, part_of(progress, 0, 2)),
            "simulated": _simulated(folder, pairs, frames, part_of(progress, 1, 2)),
            "memory": in_own_process(_growth, folder),
        }
        if run is not None and clip is not None:
            from persondet.benchmarks.video_model import gpu_overhead, real_model

            kinds = {"exact": "float32", "default": "auto"}
            for name, dtype in kinds.items():
                found[name] = in_own_process(
                    real_model, str(run), str(clip), str(folder), dtype, pairs, frames, _CORES
                )
            if overhead := gpu_overhead(run, clip, folder, pairs, frames):
                found["gpu"] = overhead
    return found


def in_own_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `work` returns in a fresh process: its memory and its cores are its own."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_send, args=(sender, work, *arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise PersondetError("a process of the video benchmark was ended.") from None
    finally:
        process.join()


def _send(sender: Any, work: Callable[..., Any], *arguments: Any) -> None:
    sender.send(work(*arguments))


def _metadata() -> Metadata:
    return Metadata(name="persondet_benchmark_video", thing_classes=["person"])


def _draw(pairs: int, progress: Progress | None) -> dict[str, Any]:
    """Time pasting and drawing on frames of a clip."""
    image = street(WIDTH, HEIGHT)
    results = [raw_people(index, WIDTH, HEIGHT) for index in range(_DRAWN_FRAMES)]

    def ours() -> None:
        visualizer = PersonVideoVisualizer(_metadata())
        for result in results:
            visualizer.draw_on(image.copy(), paste_regions(small_masks(result)))

    def stock() -> None:
        visualizer = VideoVisualizer(_metadata())
        for result in results:
            stock_draw(visualizer, image, stock_paste(result))

    return interleaved(ours, stock, pairs=pairs, progress=progress).as_json() | {
        "frames": _DRAWN_FRAMES
    }


def _simulated(folder: Path, pairs: int, frames: int, progress: Progress | None) -> dict[str, Any]:
    """Time a whole clip with a model that leaves the processor alone."""
    source = write_street(folder / "street.mp4", frames, (WIDTH, HEIGHT))

    def ours() -> None:
        predictor = SimulatedPredictor(_metadata(), MODEL_SECONDS)
        annotate_video(source, folder / "ours.mp4", predictor, overwrite=True)

    def stock() -> None:
        predictor = SimulatedPredictor(_metadata(), MODEL_SECONDS)
        stock_annotate(
            str(source),
            str(folder / "stock.mp4"),
            lambda image: {"instances": stock_paste(predictor.raw([image])[0])},
            _metadata(),
            frames,
        )

    return interleaved(ours, stock, pairs=pairs, progress=progress).as_json() | {"frames": frames}


def _growth(folder: Path) -> dict[str, Any]:
    """Return by how much this process grows while it annotates a long clip, MB."""
    first, last = _GROWTH_FRAMES
    source = write_street(folder / "long.mp4", last, _GROWTH_SIZE)
    resident: dict[int, float] = {}

    def look(done: int, _: int | None) -> None:
        if done in _GROWTH_FRAMES:
            resident[done] = _resident_mb()

    predictor = SimulatedPredictor(_metadata(), 0.0)
    annotate_video(source, folder / "long_annotated.mp4", predictor, progress=look)
    return {"grown_mb": resident[last] - resident[first], "from": first, "to": last}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
