"""Chapter "The video": the annotated clips, stills of them, and how many were counted over time."""

from __future__ import annotations

from persondet.report.document import Block, Figure, Heading, Note, Section, Table
from persondet.report.facts import Clip, Facts
from persondet.report.run import Run
from persondet.report.sections import figure, folder_word, meanings, prose, said, table
from persondet.report.wording import DASH, duration, plain, points, share, whole

STILLS = "plots/video_stills.json"
_MOST_CLIPS = 20


def video(run: Run) -> Section:
    """Show what the detector does with a clip."""
    blocks: list[Block] = [prose("video.intro")]
    word = folder_word(run)
    if not run.clips:
        blocks.append(Note("missing", said("video.none", run=word)))
        return Section("video", "The video", tuple(blocks))
    how = f"To draw it: python tools/plot_metrics.py {word}"
    over_time = figure(run, "plots/people_over_time.png", how)
    blocks += [_clip_table(run.clips[:_MOST_CLIPS]), *_score(run), *_stills(run)]
    return Section("video", "The video", (*blocks, Heading("Counts over time"), over_time))


def _clip_table(clips: tuple[Clip, ...]) -> Table:
    rows = []
    for clip in clips:
        width, height = (clip.header[key].number() for key in ("width", "height"))
        threshold = clip.header["confidence_threshold"].number()
        rows.append(
            (
                clip.path.stem,
                f"{whole(width)} × {whole(height)}",
                duration(clip.seconds),
                whole(len(clip.counts)),
                DASH if threshold is None else f"{threshold:.2f}",
                plain(float(clip.counts.mean()), 3),
                whole(int(clip.counts.max())),
                whole(clip.people),
            )
        )
    header = ("clip", "pixels", "length", "frames", "threshold", "detections per frame", "at most")
    return table("The annotated clips", (*header, "different people"), rows, 3)


def _score(run: Run) -> list[Block]:
    score = run.results["video"]
    recall, precision = score["recall"].number(), score["precision"].number()
    if recall is None or precision is None:
        return []
    rate = score["frames_per_second"].number()
    speed = "" if rate is None else f" Annotation ran at {points(rate)} frames per second."
    known = {"recall": share(recall), "precision": share(precision), "speed": speed}
    tracked = score["idf1"].number() is not None
    return [*([_track_score(score)] if tracked else []), prose("video.score", **known)]


def _track_score(score: Facts) -> Table:
    """Show how well people keep their numbers in the clip with known ground truth."""
    found, there = score["unique"].number(), score["unique_truth"].number()
    rows = []
    for key, (name, meaning) in meanings("tracks").items():
        value = score[key].number()
        rows.append(
            (name, whole(value) if key in ("switches", "fragments") else share(value), meaning)
        )
    rows.append(("different people", whole(found), f"counted; the ground truth has {whole(there)}"))
    return table("How well people keep their numbers", ("what", "score", "meaning"), rows, (1,))


def _stills(run: Run) -> list[Block]:
    heading, blocks = Heading("Stills"), []
    for still in run.facts(STILLS)["stills"].entries()[:6]:
        seconds, people = still["time"].number(), still["people"].count()
        when = "" if seconds is None else f" at {seconds:.1f} seconds"
        count = "" if people is None else f": {whole(people)} found"
        clip = still["clip"].text() or "the clip"
        name = f"plots/{still['file'].text()}"
        blocks.append(figure(run, name, caption=f"A frame of {clip}{when}{count}."))
    if any(isinstance(block, Figure) for block in blocks):
        return [heading, prose("video.stills"), *blocks]
    return [heading, Note("missing", said("video.no_stills", run=folder_word(run)))]
