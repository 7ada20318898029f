"""The demo's steps in order: sample, pre-training, transfer, score, video, plots, report.

Each step that trains runs in a process of its own, so that it starts as its command would and
gives its memory back. The result appears under its name when everything has succeeded.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
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
from persondet.results import read_results, write_results

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "sample_mask_rcnn_R_18_FPN.yaml"
SEED = 7
PRETRAIN_STEPS = 120

Announce = Callable[[str], None]


def run_demo(output: str | Path, sample: str | Path, announce: Announce) -> dict[str, Any]:
    """Run the whole main job on the bundled sample and return what `results.json` holds.

    Args:
        output: the run folder; replaced only when every step has succeeded.
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
    work = output.with_name(f".{output.name}.unfinished")
    shutil.rmtree(work, ignore_errors=True)
    with step("sample", f"1/6  The sample: pictures of a street and a clip, in {sample}"):
        _in_own_process(_make_sample, sample)
    with step("pretrain", "2/6  Pre-training on street objects, without people"):
        _in_own_process(_train, _pretraining(work, sample))
    with step("train", "3/6  Transfer to people: stem and res2 stay as they are"):
        _in_own_process(_train, _transfer(work, sample))
    with step("video", "4/6  Annotating the clip"):
        score = _in_own_process(_annotate, work, sample)
    with step("plots", "5/6  Plots"):
        _in_own_process(_plot, work)
    results = read_results(work)
    write_results(work, results | {"video": score, "seconds": seconds})
    _in_own_process(_move_run, work, output)
    # Last, in its final place: the report quotes commands with the folder's name.
    with step("report", "6/6  The report"):
        _in_own_process(_report, output)
    write_results(output, read_results(output) | {"seconds": seconds})
    return read_results(output)


def refuse_foreign_folder(output: Path) -> None:
    """Refuse to replace a folder that is not an earlier demo.

    Raises: OutputExistsError: naming the folder.
    """
    ours = (output / "results.json").is_file() and (output / "pretrain").is_dir()
    if output.exists() and not ours and (output.is_file() or any(output.iterdir())):
        raise OutputExistsError(
            f"{output} holds something that is not an earlier demo; choose another --output."
        )


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


def _pretraining(work: Path, sample: Path) -> SimpleNamespace:
    return _arguments(
        ROOT=sample / "street_objects",
        OUTPUT_DIR=work / "pretrain",
        opts=[
            *("DATASETS.ROBOFLOW.NAME", "street_objects"),
            *("MODEL.BACKBONE.FREEZE_AT", "0"),
            *("SOLVER.MAX_ITER", str(PRETRAIN_STEPS)),
            *("TEST.EVAL_PERIOD", str(PRETRAIN_STEPS)),
        ],
    )


def _transfer(work: Path, sample: Path) -> SimpleNamespace:
    return _arguments(
        ROOT=sample / "people",
        OUTPUT_DIR=work,
        opts=["MODEL.WEIGHTS", str(work / "pretrain" / "model_final.pth")],
    )


def _arguments(*, ROOT: Path, OUTPUT_DIR: Path, opts: list[str]) -> SimpleNamespace:
    return SimpleNamespace(
        config_file=str(CONFIG),
        opts=["DATASETS.ROBOFLOW.ROOT", str(ROOT), "OUTPUT_DIR", str(OUTPUT_DIR), *opts],
        resume=False,
        eval_only=False,
        overwrite=True,
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


def _annotate(work: Path, sample: Path) -> dict[str, float | int | None]:
    from persondet.evaluation.video_score import score_frames
    from persondet.inference.predictor import Predictor
    from persondet.inference.records import read_records
    from persondet.inference.tracking_score import read_truth, score_tracks, tracked_frames
    from persondet.video.pipeline import annotate_video

    clip = work / "city_walk_annotated.mp4"
    summary = annotate_video(sample / "city_walk.mp4", clip, Predictor.from_run(work))
    truth = read_truth(sample / "city_walk_groundtruth.json")
    frames = list(read_records(summary.records)[1])
    tracks = score_tracks(*tracked_frames(frames, truth, summary.records))
    score = score_frames(
        [
            [{"box": person.box, "score": person.score} for person in frame.people]
            for frame in frames
        ],
        [truth[frame.index] for frame in frames],
    )
    return {
        "recall": score.recall,
        "precision": score.precision,
        "frames": score.frames,
        "frames_per_second": summary.fps,
        **{name: getattr(tracks, name) for name in ("mota", "idf1", "hota")},
        **{name: getattr(tracks, name) for name in ("switches", "fragments")},
        "unique": summary.unique_people,
        "unique_truth": tracks.people,
    }


def _plot(work: Path) -> None:
    from persondet.report.plots import plot_run

    for run_dir in (work / "pretrain", work):
        plot_run(run_dir)


def _report(output: Path) -> None:
    from persondet.report.build import build_report
    from persondet.video.stills import write_stills

    write_stills(output)
    build_report(output)


def _move_run(work: Path, output: Path) -> None:
    from persondet.engine.run_folder import move_run

    move_run(work, output)
