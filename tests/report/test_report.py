"""The document of a run: complete, in order, and never stopped by what is missing."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from persondet.errors import OutputExistsError
from persondet.report.build import build_document, build_report, plots_folder
from persondet.report.document import Document, Figure, Listing, Note, Table
from persondet.report.html import html_of
from persondet.report.people_counts import find_people_counts
from persondet.report.plots import PLOTS as PLOT_FIGURES
from persondet.report.plots import plot_run
from persondet.report.plots.style import drawing
from persondet.report.run_data import read_run
from persondet.results import RunError
from persondet.video.stills import write_stills
from tests.report.finished_run import PLOTS, results, write_finished_run, write_json
from tests.report.run_files import curves

HOSTILE = "<script>alert(1)</script><b>&amp;\"'{{ 7*7 }}"
READ = (
    "config.yaml results.json metrics.json provenance.json dataset.json model_best.json "
    "parameters.txt weights.txt inference/person_test/errors.json "
    "inference/person_test/gallery/gallery.json plots/video_stills.json walk_annotated.jsonl"
).split()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_finished_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def notes(document: Document, kind: str) -> list[str]:
    return [b.text for b in document.blocks() if isinstance(b, Note) and b.kind == kind]


def texts(value: Any) -> Iterator[str]:
    """Yield every string of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from texts(item)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from texts(getattr(value, name))


def words(document: Document) -> str:
    return "\n".join(texts(document))


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_a_finished_run_has_every_section_in_the_order_of_the_work(finished: Path) -> None:
    document = build_document(finished)
    keys = [section.key for section in document.sections]
    assert keys == [
        *("asked", "dataset", "transfer", "augmentation", "training", "evaluation", "video"),
        *("limits", "repetition"),
    ]
    assert notes(document, "missing") == []
    assert notes(document, "warning") == []


def test_every_picture_of_a_finished_run_is_shown_once_with_a_caption(finished: Path) -> None:
    figures = [b for b in build_document(finished).blocks() if isinstance(b, Figure)]
    # The overview repeats what the single plots show.
    assert len(figures) == len(PLOTS) - 1 + 2 + 6 + 1
    assert all(figure.caption.endswith(".") for figure in figures)
    assert len({figure.caption for figure in figures if "missed" not in figure.caption}) == 16


def test_the_numbers_are_those_of_the_run_folder(run: Path) -> None:
    def change(results: dict[str, Any]) -> None:
        results["test"]["bbox"]["AP"] = 12.34
        results["test"]["intervals"]["bbox"]["AP"] = [9.87, 15.43]
        results["operating_point"]["threshold"] = 0.37
        results["test"]["leaks"] = {"images": 17, "share": 0.283, "with": {"train": 17}}

    edit(run / "results.json", change)
    shown = words(build_document(run))
    assert "12.3 (9.9 to 15.4)" in shown
    assert "At the threshold 0.37" in shown
    assert "17 test pictures (28 %) have a copy" in shown
    assert "52.1 (47.9" not in shown


def table_of(document: Document, title: str) -> Table:
    return next(b for b in document.blocks() if isinstance(b, Table) and b.caption == title)


def test_people_who_were_told_apart_are_counted_and_scored(run: Path) -> None:
    document = build_document(run)
    clips = table_of(document, "The annotated clips")
    assert dict(zip(clips.header, clips.rows[0], strict=True))["different people"] == "7"
    scores = {
        row[0]: row[1:] for row in table_of(document, "How well people keep their numbers").rows
    }
    assert (scores["MOTA"][0], scores["IDF1"][0], scores["HOTA"][0]) == ("62 %", "58 %", "47 %")
    assert (scores["switches"][0], scores["fragments"][0]) == ("61", "73")
    assert scores["different people"] == ("7", "counted; 6 are in the truth")


def test_a_clip_without_tracking_has_no_count_of_people_and_no_score(run: Path) -> None:
    edit(run / "results.json", lambda results: results["video"].pop("idf1"))
    lines = (run / "walk_annotated.jsonl").read_text().splitlines()
    rows = [json.loads(line) | {"unique": None} for line in lines]
    (run / "walk_annotated.jsonl").write_text("\n".join(map(json.dumps, rows)))
    document = build_document(run)
    assert table_of(document, "The annotated clips").rows[0][-1] == "–"
    assert "How well people keep their numbers" not in words(document)


def test_the_partial_clip_of_a_killed_run_is_no_clip(run: Path) -> None:
    shutil.copy(run / "walk_annotated.jsonl", run / "stroll.partial.jsonl")
    assert len(table_of(build_document(run), "The annotated clips").rows) == 1
    assert [counts.path.name for counts in find_people_counts(run)] == ["walk_annotated.jsonl"]


def test_the_words_that_a_newcomer_needs_are_explained(finished: Path) -> None:
    shown = words(build_document(finished))
    for sentence in (
        "Transfer learning starts from weights that were taught on another",
        "A frozen layer keeps the weights it came with",
        "The loss is a number that says how wrong they are",
        "(average precision) joins both into one number",
        "(intersection over union) says how well two boxes or masks fit",
        "95 of 100 such scores lie in the interval",
        "A leak is a picture that lies",
        "finds below it are not shown",
    ):
        assert sentence in shown
    figures = [b for b in build_document(finished).blocks() if isinstance(b, Figure)]
    unread = [f.caption for f in figures if not f.reading]
    assert len(unread) == 7  # the galleries and stills, explained above them


@pytest.mark.parametrize("name", [*READ, "plots/loss.png", "examples/augmentation.jpg"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_file_that_is_missing_or_damaged_leaves_a_sentence(
    run: Path, name: str, damage: str
) -> None:
    path = run / name
    if damage == "missing":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    document = build_document(run)
    assert len(document.sections) == 9
    readable_half = name in (
        "metrics.json",
        "walk_annotated.jsonl",
        "parameters.txt",
        "weights.txt",
    )
    cut_yaml = name == "config.yaml"
    if damage == "cut" and (readable_half or cut_yaml):
        return
    sentences = [text for text in notes(document, "missing") if text]
    assert sentences
    assert all(re.search(r"tools/\w+\.py|at its start|at each eval", s) for s in sentences), (
        sentences
    )


def test_an_empty_run_reports_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("")
    document = build_document(tmp_path)
    assert len(document.sections) == 9
    assert len(notes(document, "missing")) > 10


def test_a_folder_that_is_no_run_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no run folder: it has none of config\.yaml"):
        build_document(tmp_path)
    with pytest.raises(RunError, match="is no folder"):
        build_document(tmp_path / "nowhere")


def test_a_run_interrupted_at_half_reports_what_it_has(run: Path) -> None:
    for name in ("results.json", "model_best.json"):
        (run / name).unlink()
    shutil.rmtree(run / "inference")
    rows = (run / "metrics.json").read_text().splitlines()[:45]
    (run / "metrics.json").write_text("\n".join(rows))

    def change(record: dict[str, Any]) -> None:
        record["starts"][0] |= {"exit": "interrupted", "steps_done": 450}

    edit(run / "provenance.json", change)
    document = build_document(run)
    sentence = "The training was interrupted after 450 of 900 steps."
    assert any(text.startswith(sentence) for text in notes(document, "warning"))
    assert any("no score on the test split" in text for text in notes(document, "missing"))
    captions = [b.caption for b in document.blocks() if isinstance(b, Figure)]
    assert "The loss over the steps." in captions


@pytest.mark.parametrize(
    ("end", "done", "sentence"),
    [
        ("finished", 900, "The training took all of its 900 steps."),
        ("stopped early", 450, "The training stopped early, after 450 of at most 900 steps"),
        ("OSError: disk full", 300, "ended after 300 of 900 steps with an error: OSError: disk"),
        (None, 300, "has taken 300 of 900 steps, and no end of it is recorded"),
    ],
)
def test_the_end_of_the_training_is_said(run: Path, end: str, done: int, sentence: str) -> None:
    (run / "metrics.json").unlink()
    edit(run / "provenance.json", lambda r: r["starts"][0].update(exit=end, steps_done=done))
    edit(run / "results.json", lambda r: r.pop("steps"))
    assert sentence in words(build_document(run))


def test_a_resumed_log_with_nan_and_a_cut_line_is_told(run: Path) -> None:
    rows = (run / "metrics.json").read_text().splitlines()
    late = ['{"iteration": 449, "total_loss": NaN}', *rows[45:], '{"iteration": 90']
    (run / "metrics.json").write_text("\n".join([*rows, *late]))
    warnings = notes(build_document(run), "warning")
    assert any("went back to step 449" in text for text in warnings)
    assert any("1 line of metrics.json could not be read" in text for text in warnings)


def test_nothing_in_the_files_can_stop_the_report(run: Path) -> None:
    """Values of the wrong kind at random places of every JSON file."""
    chance = random.Random(3)
    wrong = (None, True, -1, 1e400, "text", [], {}, [None], {"a": 1}, [[1]], 10**400)

    def spoiled(value: Any) -> Any:
        if chance.random() < 0.08:
            return chance.choice(wrong)
        if isinstance(value, dict):
            return {key: spoiled(item) for key, item in value.items()}
        return [spoiled(item) for item in value] if isinstance(value, list) else value

    names = [name for name in READ if name.endswith(".json") and name != "metrics.json"]
    whole = {name: json.loads((run / name).read_text()) for name in names}
    for path in run.glob("plots/*.png"):
        path.unlink()  # pictures are read each time
    for _ in range(25):
        for name, value in whole.items():
            (run / name).write_text(json.dumps(spoiled(value)))
        assert len(build_document(run).sections) == 9


@pytest.mark.parametrize("seed", range(3))
def test_nothing_in_the_files_can_stop_plots_and_stills(run: Path, seed: int) -> None:
    """Values of the wrong kind in every JSON file, read as the figures read them."""
    chance = random.Random(seed)
    wrong = (None, True, -1, 1e400, "text", [], {}, [None], {"a": 1}, [[1]], 10**400)

    def spoiled(value: Any) -> Any:
        if chance.random() < 0.08:
            return chance.choice(wrong)
        if isinstance(value, dict):
            return {key: spoiled(item) for key, item in value.items()}
        return [spoiled(item) for item in value] if isinstance(value, list) else value

    write_json(run / "inference/person_test/curves.json", curves())
    write_json(run / "inference/person_test/results.json", results(("person",), "person_test"))
    (run / "walk_annotated.mp4").write_bytes(b"no video")
    files = [*run.glob("*.json"), *run.glob("inference/*/*.json"), *run.glob("*.jsonl")]
    whole = {path: path.read_text().splitlines() for path in files}
    for _ in range(4):
        for path, lines in whole.items():
            path.write_text("\n".join(json.dumps(spoiled(json.loads(line))) for line in lines))
        with drawing():
            data = read_run(run)
            for plot in PLOT_FIGURES[7:]:
                plot.draw(data)
        assert write_stills(run) == []


@pytest.mark.parametrize("track", [[1], {"a": 1}, 1.5, True])
def test_a_track_of_the_wrong_kind_stops_nothing(run: Path, track: Any) -> None:
    path = run / "walk_annotated.jsonl"
    header, first, *rest = path.read_text().splitlines()
    frame = json.loads(first)
    frame["people"] = [{"box": [1, 2, 3, 4], "score": 0.9, "track_id": track}]
    path.write_text("\n".join([header, json.dumps(frame), *rest]))
    (run / "walk_annotated.mp4").write_bytes(b"no video")
    assert len(read_run(run).people[0].counts) == 100
    assert write_stills(run) == []
    assert len(build_document(run).sections) == 9


def test_a_file_in_the_place_of_the_plots_stops_no_report(run: Path, tmp_path: Path) -> None:
    """As little as a run folder that cannot be written."""
    shutil.rmtree(run / "plots")
    (run / "plots").write_text("mine")
    assert write_stills(run) == []
    with plots_folder(run) as plots:
        assert plots != run / "plots"
        plot_run(run, plots)
        build_report(run, tmp_path / "site", plots=plots)
    assert not plots.exists()
    assert "The loss over the steps." in (tmp_path / "site/report.html").read_text()
    assert (run / "plots").read_text() == "mine"
    with plots_folder(tmp_path / "site") as plots:
        assert plots == tmp_path / "site/plots"


@pytest.mark.parametrize("name", ["report.html", "report.pdf"])
def test_a_report_of_somebody_else_is_not_replaced(run: Path, tmp_path: Path, name: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / name).write_text("mine")
    with pytest.raises(OutputExistsError, match=rf"{name} is there already"):
        build_report(run, site)
    assert [path.name for path in site.iterdir()] == [name]
    build_report(run, site, overwrite=True)
    build_report(run, site)  # ours is made again
    (run / name).write_text("cut off")
    build_report(run)  # the run folder is ours


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_names_full_of_html_are_shown_as_text(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "\u2215")  # a folder is named after the dataset
    write_finished_run(tmp_path / "run", classes=(HOSTILE, "b"), dataset=name)
    edit(
        tmp_path / "run/inference" / name / "gallery/gallery.json",
        lambda gallery: gallery["misses"][0].update(caption=HOSTILE),
    )
    document = build_document(tmp_path / "run")
    assert notes(document, "missing") == []
    page = Page(html_of(document))
    plain = Page(
        html_of(build_document(write_finished_run(tmp_path / "plain", classes=("a", "b"))))
    )
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.words.count(HOSTILE) >= 5
    assert name in page.words
    assert "{{ 7*7 }}" in page.words


def test_the_page_is_one_file_without_script_or_network(finished: Path) -> None:
    page = Page(html_of(build_document(finished)))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/")), (tag, target)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import", html_of(build_document(finished)))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert all(attributes["alt"] for attributes in pictures)
    metas = [attributes for tag, attributes in page.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    policy = next(m["content"] for m in metas if "http-equiv" in m)
    assert policy is not None and policy.startswith("default-src 'none'")


def test_secrets_of_the_command_line_reach_neither_report(run: Path) -> None:
    link = "https://u:s3cr3tvalue@host.example/m.pth?X-Amz-Signature=s3cr3tvalue"

    def change(record: dict[str, Any]) -> None:
        record["starts"][0]["command"] += ["MODEL.WEIGHTS", link, "--api-key", "s3cr3tvalue"]

    edit(run / "provenance.json", change)
    text = (run / "config.yaml").read_text().replace("output/demo/pretrain/model_final.pth", link)
    (run / "config.yaml").write_text(text)
    document = build_document(run)
    assert "host.example/m.pth" in words(document)
    assert "s3cr3t" not in words(document)


def test_the_command_is_told_as_it_was_typed(finished: Path) -> None:
    listings = [b.lines for b in build_document(finished).blocks() if isinstance(b, Listing)]
    assert ("python tools/train_net.py --config-file configs/x.yaml SEED 42",) in listings


def test_the_folder_is_quoted_in_commands(run: Path) -> None:
    moved = run.rename(run.with_name("my run"))
    (moved / "plots/loss.png").unlink()
    missing = notes(build_document(moved), "missing")
    assert len(missing) == 1
    assert missing[0].endswith(f"python tools/plot_metrics.py '{moved}'")


def test_a_name_cannot_lead_out_of_the_run_folder(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "plots/loss.png", tmp_path / "outside.png")
    edit(
        run / "inference/person_test/gallery/gallery.json",
        lambda gallery: gallery["misses"][0].update(file="../../../../outside.png"),
    )
    missing = notes(build_document(run), "missing")
    assert len(missing) == 1
    assert "outside.png is not in the run folder" in missing[0]


def test_both_reports_are_written_and_the_same_again(run: Path) -> None:
    page, paper = build_report(run)
    assert (page, paper) == (run / "report.html", run / "report.pdf")
    first = page.read_bytes(), paper.read_bytes()
    build_report(run)
    assert (page.read_bytes(), paper.read_bytes()) == first


def test_every_row_of_a_table_has_the_cells_of_its_header(finished: Path) -> None:
    tables = [block for block in build_document(finished).blocks() if isinstance(block, Table)]
    assert len(tables) > 12
    for table in tables:
        assert {len(row) for row in table.rows} == {len(table.header)}, table.caption
