"""Exports of every shape go in whole or not at all, and nothing is left under the final name."""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import pytest

from persondet.data.fetch.archive_members import ArchiveLimits
from persondet.data.fetch.export_files import IncompleteExportError
from persondet.data.fetch.importing import import_export
from persondet.errors import DatasetError, OutputExistsError

ANNOTATIONS = "_annotations.coco.json"


def write_split(folder: Path, names: list[str], *, files: list[str] | None = None) -> None:
    """A split whose json names `names`, with `files` (default the same) beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": name, "width": 4, "height": 3} for i, name in enumerate(names)]
    coco = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    (folder / ANNOTATIONS).write_text(json.dumps(coco))
    for name in names if files is None else files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"picture {name}".encode())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if not path.is_dir()
    }


@pytest.fixture(params=["folder", "zip"])
def road(request, tmp_path, zip_writer):
    """Import a folder: as it is, and as a zip of it."""

    def go(source: Path, output: Path, **named) -> dict[str, int]:
        before = contents(source)
        if request.param == "folder":
            result = import_export(source, output, **named)
        else:
            zip_writer(tmp_path / "packed.zip", source)
            result = import_export(tmp_path / "packed.zip", output, **named)
        assert contents(source) == before
        return result

    go.kind = request.param
    return go


@pytest.fixture
def refused(road, tmp_path):
    """Import and expect one sentence; the output and its hidden beginnings are not there."""

    def go(source: Path, match: str, **named) -> Exception:
        (tmp_path / "place").mkdir()
        with pytest.raises((DatasetError, OutputExistsError), match=match) as caught:
            road(source, tmp_path / "place/out", **named)
        assert not any((tmp_path / "place").iterdir())
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
        assert ".unfinished" not in str(caught.value)
        return caught.value

    return go


def test_an_export_comes_in_as_it_is(road, tiny_export, tmp_path):
    steps: list[tuple[int, int | None]] = []
    result = road(tiny_export, tmp_path / "out", progress=lambda *step: steps.append(step))
    assert result == {"train": 6, "valid": 3, "test": 3}
    assert contents(tmp_path / "out") == contents(tiny_export)
    total = sum(len(content) for content in contents(tiny_export).values())
    assert steps[-1] == (total, total) and steps == sorted(steps)
    assert {path.name for path in tmp_path.iterdir()} <= {"out", "packed.zip"}


def test_an_import_shares_no_file_with_its_source(tiny_export, tmp_path):
    import_export(tiny_export, tmp_path / "out")
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "out").rglob("*") if p.is_file())


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Valid"])
@pytest.mark.parametrize("above", ["", "My Export.v3 (final)", "a/b/ü"])
def test_names_of_splits_and_nesting(road, tmp_path, name, above):
    root = tmp_path / "source" / above
    write_split(root / "train", ["a b (1).jpg", "人.png"])
    write_split(root / name, ["c.jpg"])
    assert road(tmp_path / "source", tmp_path / "out") == {"train": 2, "valid": 1}
    assert set(contents(tmp_path / "out")) == {
        f"train/{ANNOTATIONS}",
        "train/a b (1).jpg",
        "train/人.png",
        f"valid/{ANNOTATIONS}",
        "valid/c.jpg",
    }


@pytest.mark.parametrize("above", ["", "nested"])
def test_a_flat_export_is_train(road, tmp_path, above):
    write_split(tmp_path / "source" / above, ["a.jpg", "b.jpg"])
    (tmp_path / "source" / above / "README.dataset.txt").write_text("from here")
    assert road(tmp_path / "source", tmp_path / "out") == {"train": 2}
    assert set(contents(tmp_path / "out")) == {
        "README.dataset.txt",
        f"train/{ANNOTATIONS}",
        "train/a.jpg",
        "train/b.jpg",
    }


def test_only_what_belongs_to_the_export_is_taken(road, tmp_path):
    source = tmp_path / "source"
    write_split(source / "train", ["a.jpg", "deep/b.jpg", "odd.bin"])
    for name in (
        "train/not in the json.JPG",
        "train/deep/not in the json.jpg",
        "train/run.sh",
        "notes.md",
        "other/c.jpg",
    ):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text(name)
    (source / "README.roboflow.txt").write_text("read me")
    (source / "test").mkdir()
    assert road(source, tmp_path / "out") == {"train": 3}
    assert set(contents(tmp_path / "out")) == {
        "README.roboflow.txt",
        f"train/{ANNOTATIONS}",
        "train/a.jpg",
        "train/deep/b.jpg",
        "train/odd.bin",
        "train/not in the json.JPG",
    }


@pytest.mark.parametrize(("in_json", "on_disk"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_file_gets_the_unicode_form_of_the_json(road, tmp_path, in_json, on_disk):
    name = "Menschen auf der Brücke, é.jpg"
    written = unicodedata.normalize(on_disk, name)
    write_split(tmp_path / "source", [unicodedata.normalize(in_json, name)], files=[written])
    road(tmp_path / "source", tmp_path / "out")
    assert set(contents(tmp_path / "out")) == {
        f"train/{ANNOTATIONS}",
        "train/" + unicodedata.normalize(in_json, name),
    }


def test_one_file_under_two_names(road, tmp_path):
    names = [unicodedata.normalize(form, "ü.jpg") for form in ("NFC", "NFD")]
    write_split(tmp_path / "source", names, files=names[:1])
    road(tmp_path / "source", tmp_path / "out")
    assert {"train/" + name for name in names} < set(contents(tmp_path / "out"))


def test_missing_pictures(refused, tmp_path):
    write_split(tmp_path / "source/train", ["a.jpg", "b.jpg", "c.jpg"], files=["b.jpg"])
    error = refused(tmp_path / "source", r"2 of the 3 pictures that train/.* first is 'a.jpg'")
    assert isinstance(error, IncompleteExportError) and "prepare_dataset.py clean" in str(error)


def test_a_flat_export_of_one_image_that_is_missing(refused, tmp_path):
    write_split(tmp_path / "source", ["a.jpg"], files=[])
    refused(tmp_path / "source", r"1 of the 1 pictures .* missing, the first is 'a.jpg'")


@pytest.mark.parametrize(
    "name",
    ["/etc/hostname", "../x.jpg", "a/../../x.jpg", "C:\\x.jpg", "..\\x.jpg", "", ".", "a\0.jpg"],
)
def test_a_file_name_that_leads_out(refused, tmp_path, name):
    (tmp_path / "x.jpg").write_bytes(b"outside")
    write_split(tmp_path / "source/train", ["ok.jpg"])
    write_split(tmp_path / "source/train", ["ok.jpg", name], files=[])
    error = refused(tmp_path / "source", "leads out of its folder")
    assert f"train/{ANNOTATIONS}" in str(error)
    assert (tmp_path / "x.jpg").read_bytes() == b"outside"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1]", "no list of images"),
        ("{", "is not JSON"),
        ('{"images": 7}', "no list of images"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": [%s]}' % ("9" * 5000), "not JSON"),
        ("\xff\xfe", "not JSON"),
    ],
)
def test_a_json_that_is_none(refused, tmp_path, text, match):
    (tmp_path / "source/train").mkdir(parents=True)
    (tmp_path / "source/train" / ANNOTATIONS).write_bytes(text.encode("latin-1"))
    refused(tmp_path / "source", match)


def test_faults_inside_the_json_are_left_to_check(road, tmp_path):
    """An import judges whether the files are there; NaN, odd ids and the rest are `check`'s."""
    write_split(tmp_path / "source", ["a.jpg"])
    text = '{"images": [{"file_name": "a.jpg", "id": NaN}, 3, {"id": 1}], "annotations": 1e999}'
    (tmp_path / "source" / ANNOTATIONS).write_text("\ufeff" + text)
    assert road(tmp_path / "source", tmp_path / "out") == {"train": 1}


def test_too_large_a_json(refused, tmp_path):
    write_split(tmp_path / "source", ["a.jpg"])
    refused(tmp_path / "source", "larger than", limits=ArchiveLimits(json_bytes=10))


def test_no_export_or_several(refused, tmp_path):
    (tmp_path / "source/pictures").mkdir(parents=True)
    (tmp_path / "source/pictures/a.jpg").write_bytes(b"1")
    refused(tmp_path / "source", "no export in COCO format: expected train/")
    (tmp_path / "place").rmdir()
    write_split(tmp_path / "source/one/train", ["a.jpg"])
    write_split(tmp_path / "source/two/train", ["a.jpg"])
    refused(tmp_path / "source", "several exports, e.g. 'one' and 'two'")


def test_two_folders_of_one_split_and_a_split_without_json(refused, tmp_path):
    write_split(tmp_path / "source/val", ["a.jpg"])
    write_split(tmp_path / "source/valid", ["a.jpg"])
    refused(tmp_path / "source", "val/ and valid/ are the same split")
    (tmp_path / "place").rmdir()
    (tmp_path / "source/val" / ANNOTATIONS).unlink()
    refused(tmp_path / "source", "val/ has no _annotations")


def test_a_json_beside_split_folders(refused, tmp_path):
    write_split(tmp_path / "source/train", ["a.jpg"])
    write_split(tmp_path / "source", [])
    refused(tmp_path / "source", "beside split folders")


@pytest.mark.parametrize("link", ["train/a.jpg", f"train/{ANNOTATIONS}", "valid", "README.x.txt"])
def test_a_link_in_a_folder(tmp_path, link):
    write_split(tmp_path / "source/train", ["a.jpg"])
    write_split(tmp_path / "elsewhere", ["a.jpg"])
    target = {"valid": tmp_path / "elsewhere", f"train/{ANNOTATIONS}": tmp_path / "elsewhere"}
    (tmp_path / "source" / link).unlink(missing_ok=True)
    name = "" if link == "valid" else ANNOTATIONS
    (tmp_path / "source" / link).symlink_to(target.get(link, tmp_path / "elsewhere") / name)
    words = "not a plain file" if link.endswith(".json") else f"'{Path(link).name}' is a link"
    with pytest.raises(DatasetError, match=words):
        import_export(tmp_path / "source", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"source", "elsewhere"}


def test_a_link_that_does_not_belong_to_the_export_is_nobodys_business(tmp_path):
    write_split(tmp_path / "source/train", ["a.jpg"])
    (tmp_path / "source/train/run.sh").symlink_to("/etc/hostname")
    (tmp_path / "source/other").symlink_to("/etc")
    assert import_export(tmp_path / "source", tmp_path / "out") == {"train": 1}


def test_a_pipe_in_the_place_of_a_picture(tmp_path):
    write_split(tmp_path / "source/train", ["a.jpg"], files=[])
    os.mkfifo(tmp_path / "source/train/a.jpg")
    with pytest.raises(DatasetError, match="'a.jpg' is not a plain file"):
        import_export(tmp_path / "source", tmp_path / "out")


def test_what_is_there_is_not_overwritten_unasked(road, tiny_export, tmp_path):
    write_split(tmp_path / "out/train", ["old.jpg"])
    before = contents(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        road(tiny_export, tmp_path / "out")
    assert contents(tmp_path / "out") == before
    road(tiny_export, tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == contents(tiny_export)


def test_overwriting_by_a_faulty_export_keeps_the_old_one(road, tmp_path):
    write_split(tmp_path / "out/train", ["old.jpg"])
    before = contents(tmp_path / "out")
    write_split(tmp_path / "source", ["a.jpg"], files=[])
    with pytest.raises(DatasetError):
        road(tmp_path / "source", tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before


def test_output_and_source_in_each_other(tmp_path):
    write_split(tmp_path / "source/train", ["a.jpg"])
    before = contents(tmp_path)
    for source, output in (
        ("source", "source"),
        ("source", "source/out"),
        ("source/train", "source"),
    ):
        with pytest.raises(OutputExistsError, match="lie in each other"):
            import_export(tmp_path / source, tmp_path / output, overwrite=True)
    assert contents(tmp_path) == before


def test_no_such_source(tmp_path):
    with pytest.raises(DatasetError, match="no such file"):
        import_export(tmp_path / "none.zip", tmp_path / "out")


def test_a_full_disk(road, tiny_export, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutputExistsError, match="MiB left"):
        road(tiny_export, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} <= {"packed.zip"}


@pytest.mark.parametrize("road", ["folder", "zip"])
def test_a_disk_that_fills_up_meanwhile(road, tiny_export, tmp_path, monkeypatch, zip_writer):
    def full(*_):
        raise OSError(28, "No space left on device")

    source = tiny_export if road == "folder" else tmp_path / "packed.zip"
    zip_writer(tmp_path / "packed.zip", tiny_export)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OutputExistsError, match="cannot be written .No space left"):
        import_export(source, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"packed.zip"}


def test_a_zip_in_a_zip_is_no_export(tiny_export, tmp_path, zip_writer):
    zip_writer(tmp_path / "inner.zip", tiny_export)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(tmp_path / "inner.zip", "inner.zip")
    with pytest.raises(DatasetError, match="no export in COCO"):
        import_export(tmp_path / "outer.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("roboflow-drone-person-polygons", {"train": 85, "valid": 24, "test": 12}),
        ("roboflow-heads-boxes-only", {"train": 174, "valid": 16, "test": 9}),
        ("roboflow-multimodal-human-polygons", {"train": 241, "valid": 66, "test": 33}),
        ("bad-flat-polygons", {"test": 8}),
    ],
)
def test_real_exports(road, real_data, tmp_path, name, splits):
    assert road(real_data / name, tmp_path / "out") == splits
    for split in splits:
        (folder,) = {path.parent for path in (real_data / name).rglob(f"{split}*/{ANNOTATIONS}")}
        compared = filecmp.dircmp(folder, tmp_path / "out" / split)
        assert not compared.right_only and not compared.diff_files
        assert {Path(name).suffix for name in compared.left_only} <= {".mp4", ".txt"}
