"""Exports of every shape go in whole or not at all, and nothing is left under the final name."""

import json
import shutil

import pytest

from persondet.data.fetch import importing
from persondet.data.fetch.importing import IncompleteExportError, import_export
from persondet.errors import DatasetError, OutputExistsError
from tests.data.fetch.conftest import contents, write_zip

ANNOTATIONS = "_annotations.coco.json"


def write_split(folder, *names, files=None):
    """A split with `names` in its json, and `files` (default the same) beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    coco = {"images": [{"file_name": n} for n in names], "annotations": [], "categories": []}
    (folder / ANNOTATIONS).write_text(json.dumps(coco))
    for name in names if files is None else files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"image {name}".encode())


@pytest.fixture
def source(tmp_path):
    return tmp_path / "source"


@pytest.fixture(params=["folder", "zip"])
def road(request, tmp_path):
    """Import a folder: as it is, and as a zip of it; the source stays as it is."""

    def go(source, output=tmp_path / "out", **named):
        before = contents(source)
        given = source if request.param == "folder" else tmp_path / "packed.zip"
        if request.param == "zip":
            write_zip(given, source)
        result = import_export(given, output, **named)
        assert contents(source) == before
        return result

    return go


@pytest.fixture
def refused(road, tmp_path):
    """Import and expect one sentence; the output and its hidden beginnings are not there."""

    def go(source, match, kind=DatasetError):
        (tmp_path / "place").mkdir(exist_ok=True)
        with pytest.raises(kind, match=match) as caught:
            road(source, tmp_path / "place/out")
        assert not any((tmp_path / "place").iterdir())
        text = str(caught.value)
        assert text.endswith(".") and "\n" not in text and ".unfinished" not in text
        return text

    return go


def test_an_export_comes_in_as_it_is(road, tiny_export, tmp_path):
    steps = []
    result = road(tiny_export, progress=lambda *step: steps.append(step))
    assert result == {"train": 6, "valid": 3, "test": 3}
    assert contents(tmp_path / "out") == contents(tiny_export)
    total = sum(len(content) for content in contents(tiny_export).values())
    assert steps[-1] == (total, total) and steps == sorted(steps)
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_only_what_belongs_to_a_flat_export_is_taken(road, source, tmp_path):
    write_split(source / "nested", "a.jpg", "deep/b.jpg", "odd.bin")
    left = ["deep/not in the json.jpg", "run.sh", "../notes.md", "../other/c.jpg"]
    (source / "other").mkdir()
    for name in ["not in the json.JPG", "README.roboflow.txt", *left]:
        (source / "nested" / name).write_text(name)
    assert road(source) == {"train": 3}
    images = {"a.jpg", "deep/b.jpg", "odd.bin", "not in the json.JPG", ANNOTATIONS}
    expected = {"README.roboflow.txt", *(f"train/{name}" for name in images)}
    assert set(contents(tmp_path / "out")) == expected


@pytest.mark.parametrize("name", ["/etc/hostname", "a/../../x.jpg", "..\\x.jpg", "a\0.jpg"])
def test_a_file_name_that_leads_out(refused, source, tmp_path, name):
    (tmp_path / "x.jpg").write_bytes(b"outside")
    write_split(source / "train", "ok.jpg")
    write_split(source / "train", "ok.jpg", name, files=())
    assert f"train/{ANNOTATIONS}" in refused(source, "leads out of its folder")
    assert (tmp_path / "x.jpg").read_bytes() == b"outside"


@pytest.mark.parametrize("link", ["train/a.jpg", f"train/{ANNOTATIONS}", "valid", "README.x.txt"])
def test_a_link_in_the_export_is_refused_and_one_beside_it_left_out(source, tmp_path, link):
    write_split(source / "train", "a.jpg")
    (source / "train/run.sh").symlink_to("/etc/hostname")
    assert import_export(source, tmp_path / "elsewhere/out") == {"train": 1}
    assert len(contents(tmp_path / "elsewhere/out")) == 2
    write_split(tmp_path / "elsewhere", "a.jpg")
    (source / link).unlink(missing_ok=True)
    (source / link).symlink_to(tmp_path / "elsewhere" / ("" if link == "valid" else ANNOTATIONS))
    with pytest.raises(DatasetError, match="is a link|not a plain file"):
        import_export(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "elsewhere"}


def test_only_a_whole_export_replaces_what_is_there(road, source, tiny_export, tmp_path):
    write_split(tmp_path / "out/train", "old.jpg")
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        road(tiny_export)
    write_split(source, "a.jpg", files=())
    with pytest.raises(IncompleteExportError):
        road(source, overwrite=True)
    assert contents(tmp_path / "out") == before
    road(tiny_export, overwrite=True)
    assert contents(tmp_path / "out") == contents(tiny_export)


@pytest.mark.parametrize(
    ("given", "output"), [("source", "source/out"), ("source/train", "source")]
)
def test_no_source_and_output_and_source_in_each_other(source, tmp_path, given, output):
    write_split(source / "train", "a.jpg")
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match="lie in each other"):
        import_export(tmp_path / given, tmp_path / output, overwrite=True)
    assert contents(tmp_path) == before


def test_a_full_disk(refused, tiny_export, monkeypatch):
    def full(*given):
        if 8192 in given:  # the packing of the zip here
            return copy(*given)
        raise OSError(28, "No space left on device")

    copy = shutil.copyfileobj
    monkeypatch.setattr(shutil, "copyfileobj", full)
    monkeypatch.setattr(importing, "link_or_copy", full)
    refused(tiny_export, "cannot be written .No space left", OutputExistsError)
