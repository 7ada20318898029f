"""A folder annotated once: what is finished stays, what is bad is named, a killed job goes on."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import pytest

from persondet.batch.job import only_job
from persondet.batch.options import AnnotationOptions, difference
from persondet.batch.pools import RayPool, TimedPool
from persondet.batch.store import Store
from persondet.errors import InstallationError, MediaError, OutputExistsError
from persondet.records import read_records
from tests.batch.stubs import clip_of, contents, image_of, job, ledger, load_slow, mixed_folder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def mixed(tmp_path):
    return mixed_folder(tmp_path / "in")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_what_is_good_is_done_and_the_rest_is_named_with_its_reason(mixed, out):
    summary = job(mixed, out, sheet=True)
    rows = ledger(out)
    states = {name: row["state"] for name, row in rows.items()}
    assert states == {
        "x.mp4": "done",
        "x.mkv": "done",
        "night/Ünï çødé.mp4": "done",
        "night/copy.mp4": "done",
        "cut.mkv": "partial",
        "empty.mp4": "failed",
        "page.avi": "failed",
        "photos/images-00000": "partial",
    }
    assert summary.states == {"done": 4, "partial": 2, "failed": 2}
    assert (summary.other_files, summary.items) == (1, 8)
    assert "empty" in rows["empty.mp4"]["reason"] and "HTML" in rows["page.avi"]["reason"]
    assert "1 of 4 images" in rows["photos/images-00000"]["reason"]
    for name, target in (("x.mp4", "x.mp4"), ("x.mkv", "x.mkv"), ("night/copy.mp4", "night/copy")):
        header, frames = read_records(out / f"{target}_annotated.jsonl")
        counts = [len(frame.people) for frame in frames]
        row = rows[name]
        assert (row["frames"], row["people"], row["people_max"]) == (
            len(counts),
            sum(counts),
            max(counts),
        )
        assert header.source == os.path.basename(name)
    assert rows["x.mkv"]["frames"] == 5 and rows["x.mp4"]["frames"] == 3
    assert read_records(out / "cut_annotated.jsonl")[0].damage
    assert sorted(path.name for path in (out / "photos").iterdir()) == [
        *("0.png", "1.png", "2.png", "images-00000.images.json"),
        *("images-00000.predictions.json", "images-00000.records.jsonl"),
    ]
    page = (out / "contact_sheet.html").read_text(encoding="utf-8")
    assert page.count("<img") == 5 and "empty" in page
    assert (out / "contact_sheet" / "night" / "copy_annotated.mp4.jpg").is_file()
    assert not (out / ".unfinished").exists() and not (out / "ledger.partial.jsonl").exists()
    with open(out / "summary.csv", encoding="utf-8", newline="") as file:
        assert {row["source"]: row["state"] for row in csv.DictReader(file)} == states


def test_a_second_call_does_nothing_and_says_the_same(mixed, out):
    job(mixed, out)
    before, rows = contents(out), ledger(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*_annotated*")}
    summary = job(mixed, out)
    assert contents(out) == before and summary.finished_before == 6
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*_annotated*")} == times
    for name, row in ledger(out).items():
        old = rows[name] | {"finished_before": row["finished_before"]}
        assert row | {"seconds": 0} == old | {"seconds": 0}


def test_a_lost_ledger_is_made_again_from_the_results(mixed, out):
    job(mixed, out)
    rows = ledger(out)
    (out / "ledger.jsonl").unlink()
    job(mixed, out)
    for name, row in ledger(out).items():
        for key in ("state", "frames", "people", "people_max", "unique"):
            assert row[key] == rows[name][key], (name, key)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda source: clip_of(source / "a.mp4", 3, first=2), "source has changed"),
        (lambda source: os.utime(source / "a.mp4", (1, 1)), "source has changed"),
        (lambda source: AnnotationOptions(stride=2), "another stride"),
    ],
)
def test_a_result_of_something_else_is_refused_or_replaced(tmp_path, out, change, why):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    job(tmp_path / "in", out)
    before = contents(out)
    options = change(tmp_path / "in")
    options = options if isinstance(options, AnnotationOptions) else None
    summary = job(tmp_path / "in", out, options=options)
    assert summary.states == {"refused": 1} and contents(out) == before
    assert why in ledger(out)["a.mp4"]["reason"]
    assert job(tmp_path / "in", out, options=options, overwrite=True).states == {"done": 1}
    assert contents(out) != before
    assert job(tmp_path / "in", out, options=options).finished_before == 1


@pytest.mark.parametrize("name", ["a_annotated.mp4", "b.png"])
def test_a_file_of_somebody_else_is_not_replaced(tmp_path, out, name):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    image_of(tmp_path / "in" / "b.png")
    out.mkdir()
    (out / name).write_bytes(b"mine")
    assert job(tmp_path / "in", out).states == {"refused": 1, "done": 1}
    assert (out / name).read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("make", "name", "result"),
    [(clip_of, "a.mp4", "a_annotated.mp4"), (image_of, "b.png", "b.png")],
)
def test_what_was_published_without_its_records_is_done_again(
    tmp_path, out, monkeypatch, make, name, result
):
    make(tmp_path / "in" / name)
    job(tmp_path / "in", tmp_path / "whole")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "publish_claimed", killed)
        with pytest.raises(KeyboardInterrupt):
            job(tmp_path / "in", out)
    assert (out / result).is_file() and len(list(out.glob(".*.jsonl"))) == 1
    assert job(tmp_path / "in", out).states == {"done": 1}
    assert contents(out) == contents(tmp_path / "whole")


def test_images_that_join_a_shard_make_it_another_one(tmp_path, out):
    image_of(tmp_path / "in" / "a.png")
    job(tmp_path / "in", out)
    image_of(tmp_path / "in" / "b.png", 1)
    assert "source has changed" in job_reason(tmp_path / "in", out)


def job_reason(source, output):
    job(source, output)
    ((_, row),) = ledger(output).items()
    return row["reason"]


def test_a_second_job_on_one_output_is_told_so(tmp_path, out):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    with only_job(Store(out)), pytest.raises(OutputExistsError, match="another job"):
        job(tmp_path / "in", out)
    assert job(tmp_path / "in", out).states == {"done": 1}


def test_an_address_is_held_by_a_file_that_grows_old(tmp_path):
    address = f"memory://{tmp_path.name}"
    store = Store(address)
    with only_job(store):
        held = json.loads(store.read(".job.json"))
        with pytest.raises(OutputExistsError, match="another job"), only_job(Store(address)):
            pass
    assert store.read(".job.json") is None
    store.write(".job.json", json.dumps(held | {"time": held["time"] - 100}).encode())
    with only_job(store):
        pass


def test_a_job_from_an_address_to_an_address(tmp_path):
    clip_of(tmp_path / "in" / "n" / "a.mp4", 3)
    image_of(tmp_path / "in" / "b.png")
    source, output = Store(f"memory://{tmp_path.name}/in"), Store(f"memory://{tmp_path.name}/out")
    for name in ("n/a.mp4", "b.png"):
        source.write(name, (tmp_path / "in" / name).read_bytes())
    assert job(source.root, output.root, sheet=True).states == {"done": 2}
    names = {name for name, _, _ in output.walk()}
    assert {"n/a_annotated.mp4", "n/a_annotated.jsonl", "b.png", "ledger.jsonl"} <= names
    again = job(source.root, output.root)
    assert (again.finished_before, again.frames) == (2, 4)


def test_an_output_inside_the_input_is_not_annotated(tmp_path):
    clip_of(tmp_path / "a.mp4", 3)
    image_of(tmp_path / "b.png")
    for _ in range(2):
        assert job(tmp_path, tmp_path / "out").items == 2


def test_a_link_to_a_file_that_is_gone_is_named(tmp_path, out):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    (tmp_path / "in" / "gone.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    assert job(tmp_path / "in", out).states == {"done": 1, "failed": 1}
    assert "gone.mp4" in ledger(out)["gone.mp4"]["reason"]


def test_lines_and_zones_belong_to_what_a_result_was_made_with(tmp_path, out):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    areas = tmp_path / "areas.yaml"
    areas.write_text("lines:\n  door: [[10, 40], [240, 40]]\n")
    job(tmp_path / "in", tmp_path / "plain")
    options = AnnotationOptions(areas=areas)
    assert job(tmp_path / "in", out, options=options).states == {"done": 1}
    clip = Path("a_annotated.mp4")
    assert (out / clip).read_bytes() != (tmp_path / "plain" / clip).read_bytes()
    assert job(tmp_path / "in", out, options=options).finished_before == 1
    areas.write_text("lines:\n  door: [[10, 30], [240, 30]]\n")
    assert job(tmp_path / "in", out, options=options).states == {"refused": 1}


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InstallationError, match=r"pip install persondet\[cluster\]"):
        RayPool(None, "local")


def test_an_empty_folder_is_bad_input(tmp_path, out):
    (tmp_path / "in").mkdir()
    with pytest.raises(MediaError, match="neither"):
        job(tmp_path / "in", out)


def test_a_difference_names_what_differs():
    wanted = {"source": {"size": 1}, "model": "m", "settings": {"stride": 1, "crf": None}}
    assert difference(wanted, wanted) == ""
    assert "do not say" in difference(None, wanted) and "do not say" in difference([], wanted)
    assert "model" in difference(wanted | {"model": "n"}, wanted)
    assert "another crf" in difference(wanted | {"settings": {"stride": 1, "crf": 3}}, wanted)
    assert "another stride" in difference(wanted | {"settings": None}, wanted)
    assert "source" in difference(wanted | {"source": {}}, wanted)


def test_a_long_clip_is_cut_where_nothing_is_tracked(tmp_path, out):
    clip_of(tmp_path / "in" / "a.mp4", 10)
    clip_of(tmp_path / "in" / "short.mp4", 3)
    options = AnnotationOptions(tracking=False)
    job(tmp_path / "in", tmp_path / "whole", options=options)
    for before in (0, 4):
        summary = job(tmp_path / "in", out, options=options, span=Fraction(4, 25))
        assert (summary.items, summary.frames, summary.finished_before) == (4, 13, before)
    rows = ledger(out)
    parts = [f"a.{number:04d}_annotated" for number in range(3)]
    assert [rows[f"a.mp4#{number:04d}"]["target"] for number in range(3)] == [
        f"{part}.mp4" for part in parts
    ]
    frames = [f for part in parts for f in read_records(out / f"{part}.jsonl")[1]]
    whole = read_records(tmp_path / "whole" / "a_annotated.jsonl")[1]
    assert [(f.time, f.people) for f in frames] == [(f.time, f.people) for f in whole]


@pytest.mark.slow
def test_an_item_that_hangs_is_given_up_and_the_others_are_done(tmp_path, out):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    clip_of(tmp_path / "in" / "hangs.mp4", 40, width=64, height=48)
    clip_of(tmp_path / "in" / "z.mp4", 3)
    summary = job(tmp_path / "in", out, load=load_slow, pool=TimedPool, seconds=6.0)
    assert summary.states == {"done": 2, "failed": 1}
    assert "6 seconds" in ledger(out)["hangs.mp4"]["reason"]
    assert not list(out.rglob("*hangs*")) and not (out / ".unfinished").exists()


KILLED = """
import sys
from tests.batch.stubs import job, load_slow
job(sys.argv[1], sys.argv[2], load=load_slow)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_job_that_is_killed_goes_on_with_the_same_call(tmp_path, out, kind):
    for number in range(6):
        clip_of(tmp_path / "in" / f"{number}.mp4", 3 + number, first=number)
    job(tmp_path / "in", tmp_path / "whole")
    environment = os.environ | {"PERSONDET_STUB_SECONDS": "0.2", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not list(out.glob("*_annotated.jsonl")):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(kind)
    assert process.wait() != 0
    assert len(list(out.glob("*_annotated.jsonl"))) < 6
    assert job(tmp_path / "in", out).states == {"done": 6}
    assert contents(out) == contents(tmp_path / "whole")
    rows, whole = ledger(out), ledger(tmp_path / "whole")
    assert {n: r["frames"] for n, r in rows.items()} == {n: r["frames"] for n, r in whole.items()}
