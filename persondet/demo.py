"""The demo's steps in order: sample, transfer from ImageNet, score, video, plots, report.

Each step that trains runs in a process of its own, so that it starts as its command would and
gives its memory back. Everything is made where it stays; a demo that was cut off goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from persondet.environment import config_folder, process_pool
from persondet.errors import OutputExistsError
from persondet.results import FILE_NAME, RunError, read_results, write_results

CONFIG = config_folder() / "sample_mask_rcnn_EfficientNet_Lite0_FPN.yaml"
SEED = 7
PRODUCTS = ("report.html", "report.pdf", "city_walk_annotated.mp4", "city_walk_annotated.jsonl")

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

    refuse_foreign_folder(output, sample)
    if is_finished(output):
        _in_own_process(_remove, output)
    resume = (output / "last_checkpoint").is_file()
    with step("sample", f"1/5  The sample: images of a street and a clip, in {sample}"):
        _in_own_process(_make_sample, sample)
    with step("train", "2/5  Transfer from ImageNet: the stem and three stages stay as they are"):
        data = ["DATASETS.ROBOFLOW.ROOT", str(sample / "people"), "OUTPUT_DIR", str(output)]
        flags = {"resume": resume, "overwrite": not resume, "eval_only": False}
        _in_own_process(_train, SimpleNamespace(config_file=str(CONFIG), opts=data, **flags))
    with step("video", "3/5  Annotating the clip"):
        score = _in_own_process(_annotate, output, sample)
    with step("plots", "4/5  Plots"):
        _in_own_process(_plot, output)
    write_results(output, read_results(output) | {"video": score, "seconds": seconds})
    with step("report", "5/5  The report"):
        _in_own_process(_report, output)
    write_results(output, read_results(output) | {"seconds": seconds})
    return read_results(output)


def refuse_foreign_folder(output: Path, sample: Path) -> None:
    """Refuse to write into a folder that is not an earlier demo on the same sample.

    Raises: OutputExistsError: naming the folder.
    """
    config = output / "config.yaml"
    ours = config.is_file() and str(sample / "people") in config.read_text(encoding="utf-8")
    if output.exists() and not ours and (output.is_file() or any(output.iterdir())):
        raise OutputExistsError(
            f"{output} holds something that is not an earlier demo; choose another --output."
        )


def is_finished(output: Path) -> bool:
    """Return whether the demo in a folder came to its end: a new one then replaces it."""
    try:
        return "report" in (read_results(output).get("seconds") or {})
    except RunError:  # none; a damaged one makes the demo anew
        return (output / FILE_NAME).is_file()


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


def _in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    killed = (
        "a step of the demo was killed, most likely because memory ran out; close other programs "
        "(the demo needs some 4 GB) and start again."
    )
    with process_pool(1, killed) as pool:
        return pool.submit(function, *args).result()


def _remove(output: Path) -> None:
    from persondet.engine.run_folder import remove_run

    remove_run(output)
    for name in PRODUCTS:
        (output / name).unlink(missing_ok=True)


def _make_sample(sample: Path) -> None:
    from persondet.sample.export import make_sample, sample_is_current

    if not sample_is_current(sample, SEED):
        make_sample(sample, SEED, overwrite=True, workers=min(os.cpu_count() or 1, 8))


def _train(args: Any) -> None:
    from persondet.engine.run import run

    run(args)


def _annotate(output: Path, sample: Path) -> dict[str, float | int | None]:
    from persondet.inference.predictor import Predictor
    from persondet.inference.tracking import read_ground_truth, score_tracks, tracked_frames
    from persondet.records import read_records
    from persondet.video.pipeline import annotate_video

    clip = output / "city_walk_annotated.mp4"
    predictor = Predictor.from_run(output)
    summary = annotate_video(sample / "city_walk.mp4", clip, predictor, overwrite=True)
    ground_truth = read_ground_truth(sample / "city_walk_groundtruth.json")
    frames = list(read_records(summary.records)[1])
    score = score_tracks(*tracked_frames(frames, ground_truth, summary.records))
    names = ("recall", "precision", "mota", "idf1", "hota", "switches", "fragments", "frames")
    return {
        **{name: getattr(score, name) for name in names},
        "frames_per_second": summary.fps,
        "unique": summary.unique_people,
        "unique_truth": score.people,
    }


def _plot(output: Path) -> None:
    from persondet.report.plots import plot_run

    plot_run(output)


def _report(output: Path) -> None:
    from persondet.report.build import build_report
    from persondet.video.clip_files import write_stills

    write_stills(output)
    build_report(output)
