"""Exports by somebody who means harm, through the command line: refused or neutralised.

Each ends with a code and a sentence, never with a traceback, and leaves nothing outside its output.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli
import prepare_dataset
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.check.text import report_lines
from persondet.data.check.validate import check_export
from persondet.data.cleaned_copy import clean_dataset
from persondet.data.split import split_export
from persondet.errors import DatasetError
from tests.data.exports import ANNOTATION_FILE, picture, random_export
from tests.data.test_export_habits import people, write_habit
from tests.data.test_faults_property import in_this_process

TOOLS = Path(prepare_dataset.__file__).parent


def mostly_slow(values: Iterable[Any]) -> list[Any]:
    """The values for a parametrisation, all but the first two marked slow."""
    return [
        value if index < 2 else pytest.param(value, marks=pytest.mark.slow)
        for index, value in enumerate(values)
    ]


@dataclass
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    def refused(self) -> str:
        """The one sentence of a refusal; asserts that there is one and nothing else went wrong."""
        assert self.code == 2, self
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self
        assert "Traceback" not in self.out + self.err
        return lines[0]


Prepare = Callable[..., Said]


@pytest.fixture
def prepare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Prepare:
    """Runs tools/prepare_dataset.py in this process, as the command line does.

    Checks each time that nothing but the named output has changed below `tmp_path`.
    """

    def run(*arguments: object) -> Said:
        words = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", ["prepare_dataset.py", *words])
        before = listing(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.run(prepare_dataset.main)
        out, err = capsys.readouterr()
        said = Said(int(end.value.code or 0), out, err)
        outputs = [
            Path(words[index + 1])
            for index, word in enumerate(words)
            if word in ("--output", "--json", "--plot")
        ]
        for path in outputs if said.code == 2 else []:
            assert not path.exists() or str(path.relative_to(tmp_path)) in before, said
        after = {
            name: entry
            for name, entry in listing(tmp_path).items()
            if name in before
            or not any((tmp_path / name).is_relative_to(output) for output in outputs)
        }
        # The folder that holds the output may be new.
        parents = {
            str(p.relative_to(tmp_path))
            for o in outputs
            for p in o.parents
            if tmp_path in p.parents
        }
        assert {n: e for n, e in after.items() if n not in parents} == {
            n: e for n, e in before.items() if n not in parents
        }, said
        assert "Traceback" not in out + err
        return said

    return run


def listing(root: Path) -> dict[str, Any]:
    """Everything below a folder: kind, and content or target."""
    found: dict[str, Any] = {}
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                content = os.readlink(path)
            elif stat.S_ISREG(mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                content = ""
            found[str(path.relative_to(root))] = (stat.S_IFMT(mode), content)
    return found


def good_export(root: Path) -> Path:
    write_habit(root, {"train": [people(2)] * 3, "valid": [people(1)] * 2, "test": [people(1)] * 2})
    return root


def edit(root: Path, change: Callable[[dict[str, Any]], Any], split: str = "train") -> Path:
    """Change the json of a split."""
    path = root / split / ANNOTATION_FILE
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))
    return root


def codes(report_file: Path) -> dict[str, int]:
    report = json.loads(report_file.read_text())
    return {finding["code"]: finding["count"] for finding in report["findings"]}


def file_names(root: Path, split: str = "train") -> list[str]:
    coco = json.loads((root / split / ANNOTATION_FILE).read_text())
    return [image["file_name"] for image in coco["images"]]


# The exit codes that a good export and an ordinary fault have


def test_exit_codes(prepare: Prepare, tmp_path: Path) -> None:
    good = good_export(tmp_path / "good")
    assert prepare("check", good, "--json", tmp_path / "good.json").code == 0
    assert json.loads((tmp_path / "good.json").read_text())["version"] == 1
    assert prepare("check", good, "--strict").code == 0
    warned = edit(good_export(tmp_path / "warned"), lambda coco: coco["annotations"].clear())
    assert prepare("check", warned).code == 0
    assert prepare("check", warned, "--strict").code == 1
    wrong = edit(good_export(tmp_path / "wrong"), lambda coco: coco["annotations"][0].pop("bbox"))
    said = prepare("check", wrong, "--json", tmp_path / "wrong.json")
    assert said.code == 1
    assert "box-invalid" in said.out
    assert codes(tmp_path / "wrong.json") == {"box-invalid": 1}
    prepare("check", wrong, "--json", tmp_path / "wrong.json").refused()  # it is there already
    assert prepare("check", wrong, "--json", tmp_path / "wrong.json", "--overwrite").code == 1
    assert prepare("clean", wrong, "--output", tmp_path / "clean").code == 0
    assert json.loads((tmp_path / "clean/cleaning.json").read_text())["changes"] == {
        "box-invalid": 1
    }
    assert prepare("check", tmp_path / "clean", "--strict").code == 0
    prepare("clean", wrong, "--output", tmp_path / "clean").refused()
    prepare("check", tmp_path / "nowhere").refused()
    prepare("clean", tmp_path / "nowhere", "--output", tmp_path / "x").refused()
    prepare("split", tmp_path / "nowhere", "--output", tmp_path / "x").refused()
    prepare("import", tmp_path / "nowhere", "--output", tmp_path / "x").refused()
    prepare("clean", good, "--output", tmp_path / "x", "--classes", "persn").refused()


def test_import_split_clean_and_check_after_one_another(prepare: Prepare, tmp_path: Path) -> None:
    write_habit(tmp_path / "flat", {"": [people(2)] * 8})
    archive = tmp_path / "mein Export (1).zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted((tmp_path / "flat").iterdir()):
            file.write(path, f"Ordner mit ä/{path.name}")
    assert prepare("import", archive, "--output", tmp_path / "in").code == 0
    fractions = ("--fractions", 0.5, 0.25, 0.25, "--seed", 0)
    assert prepare("split", tmp_path / "in", "--output", tmp_path / "cut", *fractions).code == 0
    assert prepare("clean", tmp_path / "cut", "--output", tmp_path / "clean").code == 0
    assert prepare("check", tmp_path / "clean", "--strict").code == 0
    images = [len(file_names(tmp_path / "clean", split)) for split in ("train", "valid", "test")]
    assert images == [4, 2, 2]


# Archives


def zipped(path: Path, members: dict[str, bytes] | None = None, *, link: str = "") -> Path:
    """A zip of a good export, with more members, and perhaps a link to `link`."""
    root = good_export(path.parent / f".{path.stem} source")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for source in sorted(root.rglob("*")):
            if source.is_file():
                file.write(source, source.relative_to(root).as_posix())
        if link:
            entry = zipfile.ZipInfo("train/link")
            entry.create_system = 3
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            file.writestr(entry, link)
        for name, content in (members or {}).items():
            file.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../evil.jpg",
            "train/../../evil.jpg",
            "/evil.jpg",
            "//evil.jpg",
            "train/../../../x/e.jpg",
        ),
        *("..", "..\\evil.jpg", "C:\\evil.jpg", "C:/evil.jpg", "train\\..\\..\\evil.jpg"),
    ],
)
def test_an_archive_that_climbs_out_is_refused(prepare: Prepare, tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "a.zip", {name: b"evil"})
    prepare("import", archive, "--output", tmp_path / "deep/out").refused()
    assert not Path("/evil.jpg").exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "../../..", "a.jpg"])
def test_a_link_in_an_archive_is_refused(prepare: Prepare, tmp_path: Path, target: str) -> None:
    archive = zipped(tmp_path / "a.zip", {"train/link/x.jpg": b"evil"}, link=target)
    prepare("import", archive, "--output", tmp_path / "out").refused()
    alone = zipped(tmp_path / "b.zip", link=target)
    prepare("import", alone, "--output", tmp_path / "out").refused()


def test_a_bomb_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"train/bomb.jpg": bytes(100_000_000)})
    assert archive.stat().st_size < 300_000
    prepare("import", archive, "--output", tmp_path / "out").refused()


def test_a_bomb_that_announces_a_small_size_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"train/bomb.jpg": bytes(30_000_000)})
    size = struct.pack("<I", 30_000_000)
    content = archive.read_bytes()
    assert content.count(size) == 2
    archive.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    prepare("import", archive, "--output", tmp_path / "out").refused()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, -10, -1])
def test_a_truncated_archive_is_refused(prepare: Prepare, tmp_path: Path, keep: float) -> None:
    archive = zipped(tmp_path / "a.zip")
    content = archive.read_bytes()
    archive.write_bytes(content[: int(keep * len(content)) if keep >= 0 else int(keep)])
    prepare("import", archive, "--output", tmp_path / "out").refused()


def test_an_archive_with_a_wrong_byte_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip")
    with zipfile.ZipFile(archive) as file:
        entry = next(e for e in file.infolist() if e.filename.endswith(".jpg"))
    content = bytearray(archive.read_bytes())
    content[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0xFF
    archive.write_bytes(content)
    prepare("import", archive, "--output", tmp_path / "out").refused()


def test_what_is_no_archive_is_refused(prepare: Prepare, tmp_path: Path) -> None:
    page = tmp_path / "a.zip"
    page.write_text("<html>sign in to download</html>")
    prepare("import", page, "--output", tmp_path / "out").refused()
    os.mkfifo(tmp_path / "pipe.zip")
    prepare("import", tmp_path / "pipe.zip", "--output", tmp_path / "out").refused()
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    prepare("import", tmp_path / "empty.zip", "--output", tmp_path / "out").refused()


@pytest.mark.parametrize(
    "name", ["train/" + "x" * 300 + ".jpg", "/".join(["d"] * 1500) + "/x.jpg", "train/a.jpg/b.jpg"]
)
def test_names_that_no_disk_can_hold_are_refused(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    archive = zipped(tmp_path / "a.zip", {name: b"x", "train/a.jpg": b"x"})
    prepare("import", archive, "--output", tmp_path / "out").refused()


def test_a_folder_with_links_is_imported_without_what_they_lead_to(
    prepare: Prepare, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "x.jpg").write_bytes(picture(50)[1])
    for target, name in ((secret / "x.jpg", "train/a.jpg"), (secret, "train/more")):
        root = good_export(tmp_path / f"export {name[-4:]}")
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
        said = prepare("import", root, "--output", tmp_path / f"out {name[-4:]}")
        if said.code == 2:
            said.refused()
            continue
        content = picture(50)[1]
        for path in (tmp_path / f"out {name[-4:]}").rglob("*"):
            assert not path.is_symlink()
            assert path.is_dir() or path.read_bytes() != content


# File names


OUTSIDE = ["../x.jpg", "/etc/hostname", "a/../../../x.jpg", "..", "../train/../../x.jpg"]
NOWHERE = ["a\0.jpg", "x" * 5000, "\ud800.jpg", "nowhere/" * 300, "a.jpg/b.jpg", ".", ""]


@pytest.mark.parametrize("name", mostly_slow(OUTSIDE + NOWHERE), ids=lambda name: ascii(name)[:20])
def test_a_file_name_that_leads_astray_is_found_and_dropped(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    (tmp_path / "x.jpg").write_bytes(picture(50)[1])
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.jpg").write_bytes(picture(50)[1])
    root = good_export(tmp_path / "in/export")
    edit(root, lambda coco: coco["images"][0].update(file_name=name))
    said = prepare("check", root, "--json", tmp_path / "report.json")
    assert said.code == 1
    found = codes(tmp_path / "report.json")
    kinds = {"file-name-outside", "file-missing", "image-malformed", "image-unreadable"}
    assert sum(found.get(kind, 0) for kind in kinds) == 1, found
    if name in OUTSIDE:
        assert found["file-name-outside"] == 1
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["btrain.jpg", "ctrain.jpg"]
    assert prepare("check", tmp_path / "clean").code == 0
    said = prepare("split", root, "--output", tmp_path / "cut")
    if said.code == 2:
        said.refused()
    else:
        copied = [path.read_bytes() for path in (tmp_path / "cut").rglob("*.jpg")]
        assert picture(50)[1] not in copied


def test_a_link_among_the_images_is_not_followed_out(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(picture(50)[1])
    root = good_export(tmp_path / "export")
    (root / "train/atrain.jpg").unlink()
    (root / "train/atrain.jpg").symlink_to(tmp_path / "secret.jpg")
    assert prepare("check", root, "--json", tmp_path / "report.json").code == 1
    assert codes(tmp_path / "report.json").get("file-name-outside") == 1
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["btrain.jpg", "ctrain.jpg"]
    for path in (tmp_path / "clean").rglob("*"):
        assert not path.is_symlink()


def test_a_pipe_among_the_images_does_not_block(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "export")
    (root / "train/atrain.jpg").unlink()
    os.mkfifo(root / "train/atrain.jpg")
    assert prepare("check", root).code == 1
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["btrain.jpg", "ctrain.jpg"]


def test_the_json_itself_as_a_image(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "export")
    edit(root, lambda coco: coco["images"][0].update(file_name=ANNOTATION_FILE))
    assert prepare("check", root).code == 1
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["btrain.jpg", "ctrain.jpg"]


def test_images_in_a_folder_of_the_split_are_no_fault(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "export")
    (root / "train/images").mkdir()
    (root / "train/atrain.jpg").rename(root / "train/images/atrain.jpg")
    edit(root, lambda coco: coco["images"][0].update(file_name="images/atrain.jpg"))
    assert prepare("check", root, "--strict").code == 0
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    (name,) = [n for n in file_names(tmp_path / "clean") if "atrain" in n]
    assert (tmp_path / "clean/train" / name).read_bytes() == picture(0)[1]
    assert prepare("check", tmp_path / "clean", "--strict").code == 0


# Outputs that would harm the source


def test_the_source_is_never_written_over(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "in/export")
    for command in ("clean", "split", "import"):
        for output in (root, root / "clean", root / "train", root.parent):
            for flags in ((), ("--overwrite",)):
                before = listing(tmp_path)
                said = prepare(command, root, "--output", output, *flags)
                said.refused()
                assert listing(tmp_path) == before


# Images


def giant_png() -> bytes:
    """20,000 x 20,000 pixels, black, one bit each: 400 megapixels in some 50 KB."""
    rows = zlib.compress(bytes((1 + 2500) * 20_000), 9)
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + kind + data
        content += struct.pack(">I", zlib.crc32(kind + data))
    return content


# Runs a command as a person does, and says how much memory it took at most, in MB. (What the
# system's accounting says of a process that was just started is its parent's peak.)
PROBE = f"""
import re, resource, runpy, sys
sys.path.insert(0, {str(TOOLS)!r})
try:
    runpy.run_path({str(TOOLS / "prepare_dataset.py")!r}, run_name="__main__")
finally:
    own = int(re.search("VmHWM:\\\\s+([0-9]+) kB", open("/proc/self/status").read())[1])
    print("peak", max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
"""


def test_a_image_of_400_megapixels_is_found_by_its_header(prepare: Prepare, tmp_path: Path) -> None:
    content = giant_png()
    assert len(content) < 60_000
    root = good_export(tmp_path / "export")
    for name in ("atrain.jpg", "btrain.jpg"):
        (root / "train" / name).write_bytes(content)
    edit(root, lambda coco: coco["images"][0].update(width=20_000, height=20_000))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "check", str(root), "--json", str(tmp_path / "report.json")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    assert "image-too-large" in done.stdout
    assert codes(tmp_path / "report.json")["image-too-large"] == 2
    match = re.search(r"^peak (\d+)$", done.stdout, re.M)
    assert match
    assert int(match[1]) < 200
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    assert file_names(tmp_path / "clean") == ["ctrain.jpg"]


# The json


def nan_and_huge(coco: dict[str, Any]) -> None:
    huge = 10**400
    coco["annotations"][0]["bbox"] = [float("nan"), huge, -huge, 1]
    coco["annotations"][1]["area"] = huge
    coco["annotations"][2]["segmentation"][0][0] = float("inf")
    coco["annotations"][3]["id"] = 10**30
    coco["annotations"][4]["image_id"] = huge
    coco["images"][2]["license"] = float("nan")


def test_nan_and_huge_integers_in_the_json(prepare: Prepare, tmp_path: Path) -> None:
    root = edit(good_export(tmp_path / "export"), nan_and_huge)
    said = prepare("check", root, "--json", tmp_path / "report.json")
    assert said.code == 1
    strict_json((tmp_path / "report.json").read_text())
    found = codes(tmp_path / "report.json")
    assert found["box-invalid"] == 1
    assert found["polygon-invalid"] == 1
    assert found["annotation-unknown-image"] == 1
    assert found["area-invalid"] >= 1
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    strict_json((tmp_path / "clean/train" / ANNOTATION_FILE).read_text())
    assert prepare("check", tmp_path / "clean").code == 0


def strict_json(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "null", "[]", "5", '"x"', "{}", '{"images": {}}', "[" * 100_000),
        *('{"images": [], "annotations": [], "categories": []}', "\x00\x01", '{"a": 1e}'),
        '{"images": null, "annotations": 5, "categories": "x"}',
        '{"images": [], "annotations": [], "categories": [], "x": ' + "9" * 10_000 + "}",
    ],
    ids=lambda text: text[:12],
)
def test_what_is_no_coco_json_is_said_in_one_sentence(
    prepare: Prepare, tmp_path: Path, text: str
) -> None:
    root = tmp_path / "export"
    (root / "train").mkdir(parents=True)
    (root / "train" / ANNOTATION_FILE).write_text(text)
    for said in (
        prepare("check", root),
        prepare("clean", root, "--output", tmp_path / "out"),
        prepare("split", root, "--output", tmp_path / "out"),
    ):
        if said.code != 1:
            said.refused()


@pytest.mark.parametrize("number", mostly_slow([[[]], {}, None, "1", 1.5]))
def test_a_category_without_a_number(prepare: Prepare, tmp_path: Path, number: Any) -> None:
    """In the train split; the others have the same class with its number."""
    root = good_export(tmp_path / "export")
    edit(root, lambda coco: coco["categories"][0].update(id=number))
    assert prepare("check", root, "--json", tmp_path / "report.json").code == 1
    assert codes(tmp_path / "report.json")["category-malformed"] == 1
    assert prepare("clean", root, "--output", tmp_path / "clean").code == 0
    assert prepare("check", tmp_path / "clean").code == 0
    said = prepare("split", root, "--output", tmp_path / "cut")
    assert said.code == 0 or said.refused()


def test_bytes_that_are_no_text(prepare: Prepare, tmp_path: Path) -> None:
    root = good_export(tmp_path / "export")
    (root / "train" / ANNOTATION_FILE).write_bytes(b'{"images": "\xff\xfe"}')
    prepare("check", root).refused()


# Names


NAMES = [
    *("<script>alert(1)</script>", "=cmd()", "$\\undefined{x}$", "%s%n{0}", "a,b;\"c'", "../../x"),
    *("\x1b[31mred\x07", "line\nbreak\rback", "\u202egnp.exe", "\ud800", "x" * 3000, " ", "\0"),
]


NAMES_TO_DRAW = {"$\\undefined{x}$", "\x1b[31mred\x07", "\ud800", "x" * 3000, "\0"}


@pytest.mark.parametrize("name", mostly_slow(NAMES), ids=lambda name: ascii(name)[:16])
def test_class_names_that_want_to_be_more_than_names(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    root = good_export(tmp_path / "export")
    for split in ("train", "valid", "test"):
        edit(root, lambda coco: coco["categories"][0].update(name=name), split)
    # Named in findings, too.
    edit(root, lambda coco: coco["annotations"][0].update(category_id=77))
    report, plot = tmp_path / "report.json", tmp_path / "page.png"
    drawn = ("--plot", plot) if name in NAMES_TO_DRAW else ()
    said = prepare("check", root, "--json", report, *drawn)
    assert said.code == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", said.out + said.err)
    assert max(map(len, said.out.splitlines())) < 400
    said.out.encode()
    strict_json(report.read_text(encoding="utf-8"))
    assert not drawn or plot.read_bytes().startswith(b"\x89PNG")
    said = prepare("clean", root, "--output", tmp_path / "clean")
    if not name.strip():  # no name at all: no class is left
        said.refused()
        return
    assert said.code == 0
    coco = json.loads((tmp_path / "clean/train" / ANNOTATION_FILE).read_text(encoding="utf-8"))
    assert len(coco["categories"]) == 1
    if name.strip() and name not in ("\0", "\ud800"):
        assert coco["categories"][0]["name"] == name
    assert prepare("check", tmp_path / "clean").code == 0


@pytest.mark.parametrize(
    "name", mostly_slow(name for name in NAMES if "\0" not in name and len(name) < 200)
)
def test_file_names_that_want_to_be_more_than_names(
    prepare: Prepare, tmp_path: Path, name: str
) -> None:
    root = good_export(tmp_path / "export")
    edit(root, lambda coco: coco["images"][0].update(file_name=f"{name}.jpg"))
    if "/" not in name and "\ud800" not in name:
        (root / "train/atrain.jpg").rename(root / f"train/{name}.jpg")
    # A fault on it, so that it is named.
    edit(root, lambda coco: coco["annotations"][0].update(bbox=[1, 1, 0, 0]))
    said = prepare("check", root, "--json", tmp_path / "report.json")
    assert said.code == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", said.out + said.err)
    said.out.encode()
    said = prepare("clean", root, "--output", tmp_path / "clean")
    assert said.code == 0
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", said.out + said.err)
    assert prepare("check", tmp_path / "clean").code == 0


# Anything at all in place of anything


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**25, -(10**400), 1e308, float("nan"), float("inf"), -0.0, 0.5]),
    st.text(max_size=4),
    st.sampled_from([[], {}, [[]], [None], [1, 2, 3, 4], {"counts": [], "size": [1, 1]}]),
)


def places(node: Any, path: tuple[Any, ...] = ()) -> dict[tuple[str, ...], list[tuple[Any, ...]]]:
    """The paths to all values inside a json, by the keys on the way (a few of each kind)."""
    found: dict[tuple[str, ...], list[tuple[Any, ...]]] = {}
    if path:
        found[tuple(key for key in path if isinstance(key, str))] = [path]
    inner = node.items() if isinstance(node, dict) else ()
    for key, value in enumerate(node) if isinstance(node, list) else inner:
        for kind, paths in places(value, (*path, key)).items():
            found[kind] = [*found.get(kind, []), *paths][-12:]
    return found


def fuzz(seed: int, data: st.DataObject, folder: Path) -> None:
    export = random_export(seed)
    split = next(iter(export.splits))
    for _ in range(data.draw(st.integers(1, 4))):
        kinds = places(export.splits[split])
        kind = data.draw(st.sampled_from(sorted(kinds)))
        *path, last = data.draw(st.sampled_from(kinds[kind]))
        node = export.splits[split]
        for key in path:
            node = node[key]
        if data.draw(st.booleans()):
            # A copy: a later change must not reach what is drawn the next time.
            node[last] = copy.deepcopy(data.draw(ANYTHING))
        else:
            del node[last]
    root = export.write(folder / "export")
    report = or_one_sentence(lambda: check_export(root))
    if report is None:
        return
    strict_json(json.dumps(report, allow_nan=False))
    "\n".join(report_lines({"folder": "x", **report})).encode()
    if or_one_sentence(lambda: clean_dataset(root, folder / "clean")) is not None:
        assert check_export(folder / "clean")["errors"] == 0
    or_one_sentence(lambda: split_export(root, folder / "cut"))


def or_one_sentence(call: Callable[[], Any]) -> Any:
    """What a call returns; None when it refuses in one sentence."""
    try:
        return call()
    except DatasetError as refusal:
        said = str(refusal)
    assert said
    assert "\n" not in said
    return None


@settings(max_examples=25, derandomize=True)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_anything_in_place_of_anything_is_no_crash(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    with in_this_process():
        fuzz(seed, data, tmp_path_factory.mktemp("fuzz"))


@pytest.mark.slow
@settings(max_examples=300)
@given(seed=st.integers(0, 10**6), data=st.data())
def test_anything_in_place_of_anything_many_times(
    tmp_path_factory: pytest.TempPathFactory, seed: int, data: st.DataObject
) -> None:
    with in_this_process():
        fuzz(seed, data, tmp_path_factory.mktemp("fuzz"))
