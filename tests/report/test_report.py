"""The document of a run: complete, in order, and never stopped by what is missing."""

import ast
import json
import random
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from persondet.errors import OutputExistsError
from persondet.report import build, sections
from persondet.report.build import build_document, build_report, html_of
from persondet.report.document import (
    Document,
    Figure,
    Listing,
    Paragraph,
    Section,
    Table,
    as_plain_text,
)
from persondet.report.plots import PLOTS as PLOT_FIGURES
from persondet.report.plots.style import drawing
from persondet.report.run import Run
from persondet.report.sections import standing
from persondet.results import RunError
from persondet.video.clip_files import write_stills
from tests.report.finished_run import (
    PLOTS,
    WEIGHTS,
    curves,
    edit,
    results,
    write_finished_run,
    write_json,
)
from tests.report.shown import notes, rows, tables, words

HOSTILE = "<script>alert(1)</script><b>&amp;\"'{{ 7*7 }}"
READ = (
    "results.json provenance.json dataset.json model_best.json "
    "parameters.json weights.json inference/person_test/errors.json "
    "inference/person_test/gallery/gallery.json plots/video_stills.json"
).split()
HALF_IS_READ = ["config.yaml", "metrics.json", "walk_annotated.jsonl", "augmentation.yaml"]


def test_a_finished_run_has_every_section_in_the_order_of_the_work(finished: Path) -> None:
    document = build_document(finished)
    assert [section.key for section in document.sections] == [
        *("asked", "dataset", "transfer", "augmentation", "training", "evaluation", "video"),
        *("limits", "repetition"),
    ]
    assert notes(document, "missing") == notes(document, "warning") == []
    for caption, table in tables(document).items():
        assert {len(row) for row in table.rows} == {len(table.header)}, caption
    figures = [b for b in document.blocks() if isinstance(b, Figure)]
    # The overview repeats what the single plots show; six gallery images and a still have no
    # reading.
    assert len(figures) == len(PLOTS) - 1 + 2 + 6 + 1
    assert {f.caption for f in figures if f.reading} == {
        words["caption"] for words in standing()["figures"].values()
    }


def test_every_standing_text_is_used_with_the_names_that_it_has() -> None:
    """Read from the source: a text with a wrong name would fail in rare runs only."""
    texts, used = standing()["text"], set()
    for path in Path(sections.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in texts:
                used.add(node.value)
            name = isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("say.")
            keys = [a.value for a in node.args if isinstance(a, ast.Constant)] if name else []
            if name in ("said", "prose", "note") and keys and keys[-1] in texts:
                given = {word.arg for word in node.keywords}
                names = {field for _, field, _, _ in Formatter().parse(texts[keys[-1]]) if field}
                assert None in given or given == names, (path.name, node.lineno)
    assert used == texts.keys()


def test_the_numbers_are_those_of_the_run_folder(run: Path) -> None:
    def change(results: dict[str, Any]) -> None:
        results["test"]["bbox"]["AP"] = 12.34
        results["test"]["intervals"]["bbox"]["AP"] = [9.87, 15.43]
        results["operating_point"]["threshold"] = 0.37
        results["test"]["leaks"] = {"images": 17, "share": 0.283, "with": {"train": 17}}

    edit(run / "results.json", change)
    document = build_document(run)
    for caption, row, first, cells in (
        ("The answer in short", "AP of the boxes", 0, ("12.3 (9.9 to 15.4)",)),
        ("Scores on person_test", "AP", 1, ("12.3 (9.9 to 15.4)",)),
        ("At the threshold 0.37", "test", 0, ("91 %", "78 %", "0.84")),
        ("The parameters (weights)", "all", 0, ("203,329", "9,536")),
        ("What was loaded", "roi_heads.box_predictor", 0, ("2", "1")),
        ("Images and objects", "train", 0, ("240", "960")),
        ("What each kind of mistake", "missed", 1, ("9.7", "11.6")),
        ("Recall: by size", "small (< 32 px)", 0, ("120", "54", "45 %")),
        ("The annotated clips", "walk_annotated", 0, ("640 × 360", "4.0 seconds", "100", "0.62")),
        ("The annotated clips", "walk_annotated", 4, ("3.5", "4", "7")),
        ("How well people keep their numbers", "HOTA", 0, ("47 %",)),
        ("How well people keep their numbers", "different people", 0, ("7",)),
    ):
        assert rows(document, caption)[row][first:][: len(cells)] == cells, (caption, row)
    assert "17 test images (28 %) have a copy" in words(document)
    assert "small (< 32 px) (45 % of 120 found)" in words(document, "limits")


def test_frames_of_a_clip_that_train_has_are_no_clean_test(run: Path) -> None:
    assert "No test image has a copy, a version or a neigh" in words(build_document(run))
    leaks = {"images": 0, "share": 0.0, "clip_mates": 60, "with": {}}
    edit(run / "results.json", lambda results: results["test"].update(leaks=leaks))
    told = words(build_document(run), "evaluation")
    assert "60 test images are of a clip" in told and "neighbouring frame in an" not in told


@pytest.mark.slow
def test_a_file_that_is_missing_or_damaged_leaves_a_sentence(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "as_plain_text", lambda document: document)  # half of the time
    absent = ["plots/loss.png", "examples/augmentation.jpg", *HALF_IS_READ]
    for name in READ + absent:
        data = (run / name).read_bytes()
        (run / name).unlink()
        if name in READ:
            (run / name).write_bytes(data[: len(data) // 2])
        document = build_document(run)
        assert len(document.sections) == 9
        sentences = notes(document, "missing")
        assert sentences, name
        for sentence in sentences:
            assert re.search(r"tools/\w+\.py|at each eval", sentence), name
        (run / name).write_bytes(data)
    for name in HALF_IS_READ:
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: len(data) // 2])
    assert len(build_document(run).sections) == 9


def test_an_empty_run_reports_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no run folder: .* config\.yaml"):
        build_document(tmp_path)
    with pytest.raises(RunError, match="is no folder"):
        build_document(tmp_path / "nowhere")
    (tmp_path / "metrics.json").write_text("")
    document = build_document(tmp_path)
    assert len(document.sections) == 9
    assert len(notes(document, "missing")) > 10


@pytest.mark.parametrize(
    ("end", "done", "kind", "sentence"),
    [
        ("finished", 900, "answer", "The training took all of its 900 steps."),
        ("stopped early", 450, "answer", "stopped early, after 450 of at most 900 steps"),
        ("interrupted", 450, "warning", "was interrupted after 450 of 900 steps."),
        ("OSError: disk full", 300, "warning", "after 300 of 900 steps with an error: OSError: d"),
        (None, 300, "warning", "has taken 300 of 900 steps, and no end is recorded"),
    ],
)
def test_the_end_of_the_training_is_said(
    run: Path, end: str, done: int, kind: str, sentence: str
) -> None:
    for name in ("metrics.json", "results.json"):
        (run / name).unlink()
    shutil.rmtree(run / "inference")
    edit(run / "provenance.json", lambda r: r["starts"][0].update(exit=end, steps_done=done))
    document = build_document(run)
    assert any(sentence in text for text in notes(document, kind))
    assert any("no score on the test split" in text for text in notes(document, "missing"))


def test_a_resumed_log_without_finite_losses_and_with_a_cut_line_is_told(run: Path) -> None:
    logged = (run / "metrics.json").read_text().splitlines()
    lost = [re.sub(r'"total_loss": [^,}]+', '"total_loss": NaN', line) for line in logged[10:60]]
    late = ['{"iteration": 449, "total_loss": NaN}', *lost[35:], '{"iteration": 90']
    (run / "metrics.json").write_text("\n".join([*logged[:10], *lost, *late]))
    edit(run / "provenance.json", lambda r: r["starts"][0].update(exit=None, steps_done=None))
    (run / "results.json").unlink()
    document = build_document(run)
    assert "The training has taken 600 of 900 steps" in words(document, "training")
    warnings = "\n".join(notes(document, "warning"))
    assert "went back to step 449" in warnings
    assert "1 line of metrics.json could not be read" in warnings
    assert re.search(r"^5\d of the \d\d logged", warnings, re.M)


@pytest.mark.slow
def test_nothing_in_the_files_can_stop_report_plots_and_stills(run: Path) -> None:
    chance = random.Random(0)
    wrong = (None, True, -1, 1e400, "text", [], {}, [None], {"a": 1}, [[1]], 10**400, 1.5)

    def spoiled(value: Any) -> Any:
        if chance.random() < 0.08:
            return chance.choice(wrong)
        if isinstance(value, dict):
            return {key: spoiled(item) for key, item in value.items()}
        return [spoiled(item) for item in value] if isinstance(value, list) else value

    for name, value in (("curves", curves()), ("results", results())):
        write_json(run / f"inference/person_test/{name}.json", value)
    (run / "walk_annotated.mp4").write_bytes(b"no video")
    for path in run.glob("plots/*.png"):
        path.unlink()  # images are read each time
    files = [*run.rglob("*.json"), *run.glob("*.jsonl")]
    whole = {path: path.read_text().splitlines()[:12] for path in files}
    for turn in range(8):
        for path, lines in whole.items():
            path.write_text("\n".join(json.dumps(spoiled(json.loads(line))) for line in lines))
        assert len(build_document(run).sections) == 9
        assert write_stills(run) == []
        if turn % 4 == 0:
            with drawing():
                for draw in list(PLOT_FIGURES.values())[7:]:
                    draw(Run(run))


def test_a_report_in_another_folder_is_not_replaced(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Document("T", "S", build_document(run).sections[:1])
    monkeypatch.setattr(build, "build_document", lambda run: short)
    site = tmp_path / "site"
    site.mkdir()
    for name in ("report.html", "report.pdf"):
        (site / name).write_text("mine")
        with pytest.raises(OutputExistsError, match=rf"{name} is there already"):
            build_report(run, site)
        assert [(path.name, path.read_text()) for path in site.iterdir()] == [(name, "mine")]
        (site / name).unlink()
    (site / name).write_text("cut off")
    first = [path.read_bytes() for path in build_report(run)]
    again = build_report(run, site, overwrite=True)
    assert [path.read_bytes() for path in again] == first  # the same bytes


class Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_names_full_of_html_are_shown_as_text(tmp_path: Path, finished: Path) -> None:
    name = HOSTILE.replace("/", "\u2215")  # a folder is named after the dataset
    run = write_finished_run(tmp_path / "run", classes=(HOSTILE,), dataset=name)
    gallery = run / "inference" / name / "gallery/gallery.json"
    edit(gallery, lambda gallery: gallery["misses"][0].update(caption=HOSTILE))
    document = build_document(run)
    assert notes(document, "missing") == []
    page, plain = Page(html_of(document)), Page(html_of(build_document(finished)))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert page.words.count(HOSTILE) >= 5
    assert name in page.words


def test_the_page_is_one_file_without_script_or_network(finished: Path) -> None:
    text = html_of(build_document(finished))
    page = Page(text)
    forbidden = {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert not {tag for tag, _ in page.tags} & forbidden
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:image/")), (tag, target)
        assert not any(name.startswith("on") for name in attributes)
        assert tag != "img" or attributes["alt"]
    assert not re.search(r"url\(|@import", text)
    metas = [
        attributes["content"] or "" for tag, attributes in page.tags if "content" in attributes
    ]
    assert any(meta.startswith("default-src 'none'") for meta in metas)


def test_secrets_of_the_command_line_reach_neither_report(run: Path) -> None:
    link = "https://u:s3cr3tvalue@host.example/m.pth?X-Amz-Signature=s3cr3tvalue"
    more = ["MODEL.WEIGHTS", link, "--api-key", "s3cr3tvalue"]
    edit(run / "provenance.json", lambda record: record["starts"][0]["command"].extend(more))
    text = (run / "config.yaml").read_text().replace(WEIGHTS, link)
    (run / "config.yaml").write_text(text)
    shown = words(build_document(run))
    assert "host.example/m.pth" in shown
    assert "s3cr3t" not in shown
    bad = "x --api-key s3cr3tvalue\0"
    section = Section("key", bad, (Paragraph(bad, bad), Table(bad, (bad,), ((bad,),))))
    shown = repr(as_plain_text(Document(bad, bad, (section,))))
    assert "s3cr3t" not in shown and "\\x00" not in shown


def test_commands_can_be_copied_and_no_name_leads_out_of_the_run_folder(run: Path) -> None:
    moved = run.rename(run.with_name("my run"))
    (moved / "plots/loss.png").rename(moved.with_name("outside.png"))
    gallery = moved / "inference/person_test/gallery/gallery.json"
    edit(gallery, lambda gallery: gallery["misses"][0].update(file="../../../../outside.png"))
    document = build_document(moved)
    listings = [b.lines for b in document.blocks() if isinstance(b, Listing)]
    assert ("python tools/train_net.py --config-file configs/x.yaml SEED 42",) in listings
    assert listings[-1][2] == (
        f"python tools/train_net.py --config-file '{moved}/config.yaml' --eval-only MODEL.WEIGHTS "
        f"'{moved}/model_best.pth' OUTPUT_DIR '{moved}'"
    )
    loss, outside = notes(document, "missing")
    assert loss.endswith(f"python tools/plot_metrics.py '{moved}'")
    assert "outside.png is not in the run folder" in outside
