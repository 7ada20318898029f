"""The demo's steps in order: sample, pre-training, transfer, score, video, plots, report.

Each step that trains runs in a process of its own, so that it starts as its command would and
gives its memory back. Everything is made where it stays; a demo that was cut off goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from persondet.environment import quiet_upstream
from persondet.errors import OutputExistsError, PersondetError
from persondet.results import FILE_NAME, read_results, write_results

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "sample_mask_rcnn_R_18_FPN.yaml"
SEED = 7
PRETRAIN_STEPS = 120

Announce = Callable[[str], None]


def run_demo(output: str | Path, sample: str | Path, announce: Announce) -> dict[str, Any]:
    """Run the whole main job on the bundled sample and return what `results.json` holds.

    Args:
        output: the run folder. A demo that was cut off there goes on; a finished one is replaced.
        sample: where the sample lies, or is made.
        announce: gets one line per step.

    Raises: PersondetError: in one sentence, when a step fails for a reason that can be mended.
    """
    output, sample = Path(output), Path(sample)
    seconds: dict[str, float] = {}

    @contextmanager
    def step(name: str, text: str) -> Iterator[None]:
        announce(text)
        start = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - start

    refuse_foreign_folder(output)
    resume = not is_finished(output)
    with step("sample", f"1/6  The sample: images of a street and a clip, in {sample}"):
        _in_own_process(_make_sample, sample)
    with step("pretrain", "2/6  Pre-training on street objects, without people"):
        _in_own_process(_train, _pretraining(output, sample, resume=resume))
    with step("train", "3/6  Transfer to people: stem and res2 stay as they are"):
        _in_own_process(_train, _transfer(output, sample, resume=resume))
    with step("video", "4/6  Annotating the clip"):
        score = _in_own_process(_annotate, output, sample)
    with step("plots", "5/6  Plots"):
        _in_own_process(_plot, output)
    write_results(output, read_results(output) | {"video": score, "seconds": seconds})
    with step("report", "6/6  The report"):
        _in_own_process(_report, output)
    write_results(output, read_results(output) | {"seconds": seconds})
    return read_results(output)


def refuse_foreign_folder(output: Path) -> None:
    """Refuse to write into a folder that is not an earlier demo.

    Raises: OutputExistsError: naming the folder.
    """
    ours = (output / "pretrain").is_dir()
    if output.exists() and not ours and (output.is_file() or any(output.iterdir())):
        raise OutputExistsError(
            f"{output} holds something that is not an earlier demo; choose another --output."
        )


def is_finished(output: Path) -> bool:
    """Return whether the demo in a folder came to its end: a new one then replaces it."""
    return (output / FILE_NAME).is_file() and "report" in read_results(output).get("seconds", {})


def summary(results: dict[str, Any], output: str | Path) -> str:
    """Return the short table at the end of the demo, and what to open."""
    test, video = results["test"], results["video"]
    lines = [f"{'test split':<12}{'AP':>8}{'AP50':>8}"]
    for task, name in (("bbox", "box"), ("segm", "mask")):
        lines.append(f"{name:<12}{test[task]['AP']:>8.1f}{test[task]['AP50']:>8.1f}")
    lines += [
        "",
        f"clip: {video['recall']:.0%} of the people found, {video['precision']:.0%} of the boxes "
        "are people",
        f"tracks: MOTA {100 * video['mota']:.1f}, IDF1 {100 * video['idf1']:.1f}, HOTA "
        f"{100 * video['hota']:.1f}, {video['switches']} switches, {video['fragments']} fragments; "
        f"{video['unique']} people counted, {video['unique_truth']} were there",
        "",
        "seconds: " + ", ".join(f"{k} {v:.0f}" for k, v in results["seconds"].items()),
        "",
        "open:",
        *(
            f"  {Path(output) / name}"
            for name in (
                "report.html",
                "report.pdf",
                "city_walk_annotated.mp4",
                "plots/training_curves.png",
                "results.json",
            )
        ),
    ]
    return "\n".join(lines)


def _pretraining(output: Path, sample: Path, *, resume: bool) -> SimpleNamespace:
    return _arguments(
        sample / "street_objects",
        output / "pretrain",
        resume=resume,
        opts=[
            *("DATASETS.ROBOFLOW.NAME", "street_objects"),
            *("MODEL.BACKBONE.FREEZE_AT", "0"),
            *("SOLVER.MAX_ITER", str(PRETRAIN_STEPS)),
            *("TEST.EVAL_PERIOD", str(PRETRAIN_STEPS)),
        ],
    )


def _transfer(output: Path, sample: Path, *, resume: bool) -> SimpleNamespace:
    return _arguments(
        sample / "people",
        output,
        resume=resume,
        opts=["MODEL.WEIGHTS", str(output / "pretrain" / "model_final.pth")],
    )


def _arguments(root: Path, output: Path, *, resume: bool, opts: list[str]) -> SimpleNamespace:
    return SimpleNamespace(
        config_file=str(CONFIG),
        opts=["DATASETS.ROBOFLOW.ROOT", str(root), "OUTPUT_DIR", str(output), *opts],
        resume=resume,
        eval_only=False,
        overwrite=not resume,
    )


def _in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=quiet_upstream) as pool:
        try:
            return pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise PersondetError(
                "a step of the demo was killed, most likely because memory ran out; close other "
                "programs (the demo needs some 4 GB) and start again."
            ) from error


def _make_sample(sample: Path) -> None:
    from persondet.sample.export import make_sample, sample_is_current

    if not sample_is_current(sample, SEED):
        make_sample(sample, SEED, overwrite=True, workers=min(os.cpu_count() or 1, 8))


def _train(args: Any) -> None:
    from persondet.engine.run import run

    run(args)


def _annotate(output: Path, sample: Path) -> dict[str, float | int | None]:
    from persondet.inference.predictor import Predictor
    from persondet.inference.tracking_score import read_ground_truth, score_tracks, tracked_frames
    from persondet.records import read_records
    from persondet.video.pipeline import annotate_video

    clip = output / "city_walk_annotated.mp4"
    predictor = Predictor.from_run(output)
    summary = annotate_video(sample / "city_walk.mp4", clip, predictor, overwrite=True)
    truth = read_ground_truth(sample / "city_walk_groundtruth.json")
    frames = list(read_records(summary.records)[1])
    score = score_tracks(*tracked_frames(frames, truth, summary.records))
    names = ("recall", "precision", "mota", "idf1", "hota", "switches", "fragments", "frames")
    return {
        **{name: getattr(score, name) for name in names},
        "frames_per_second": summary.fps,
        "unique": summary.unique_people,
        "unique_truth": score.people,
    }


def _plot(output: Path) -> None:
    from persondet.report.plots import plot_run

    for run_dir in (output / "pretrain", output):
        plot_run(run_dir)


def _report(output: Path) -> None:
    from persondet.report.build import build_report
    from persondet.video.stills import write_stills

    write_stills(output)
    build_report(output)
