"""The whole road from Roboflow to a folder, against a server that speaks its API."""

from __future__ import annotations

import io
import json
import logging
import os
import traceback
import zipfile
from pathlib import Path

import pytest

from persondet.data.fetch import downloading
from persondet.data.fetch.downloading import download_export
from persondet.data.fetch.export_link import ExportLink
from persondet.data.fetch.transfer import Patience
from persondet.errors import DatasetError, OutputExistsError, PersondetError

QUICK = Patience(connect=1.0, silence=0.5, pause=0.01, poll=0.01)


def download(tmp_path: Path, **named) -> dict[str, int]:
    return download_export(
        "harbour", "people", 3, tmp_path / "out", **{"patience": QUICK, "timeout": 20.0, **named}
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def known_link(roboflow, monkeypatch) -> list[int]:
    """Leave the looking up of the link out; it has tests of its own. Counts how often it is."""
    asked: list[int] = []

    def resolve(*_, **__) -> ExportLink:
        asked.append(1)
        return ExportLink(roboflow.link, 12)

    monkeypatch.setattr(downloading, "resolve_link", resolve)
    return asked


def test_a_download_is_the_export(roboflow, tiny_export, tmp_path):
    steps: list[tuple[int, int | None]] = []
    result = download(tmp_path, progress=lambda *step: steps.append(step))
    assert result == {"train": 6, "valid": 3, "test": 3}
    assert contents(tmp_path / "out") == contents(tiny_export)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (len(roboflow.content),) * 2 in steps and steps[-1][0] == steps[-1][1]


def test_an_expired_link_is_asked_for_again_once(roboflow, known_link, tmp_path):
    roboflow.files = ["cut 1000", "403", "whole"]
    download(tmp_path)
    assert len(known_link) == 2
    assert roboflow.asked[-1].headers["Range"] == "bytes=999-"  # and goes on where it stopped
    roboflow.files = ["403"]
    with pytest.raises(DatasetError, match="is not served"):
        download_export("harbour", "people", 3, tmp_path / "other", patience=QUICK)
    assert len(known_link) == 4 and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_download_is_no_dataset_and_goes_on(roboflow, known_link, tmp_path):
    roboflow.files = ["cut 1000", "500"]
    with pytest.raises(DatasetError, match="broke off"):
        download(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".out.download"]
    roboflow.files = ["whole"]
    download(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert roboflow.asked[-1].headers["Range"] == "bytes=999-"


@pytest.mark.parametrize("other", [{"version": 1}, {"dataset_format": "coco"}])
def test_another_version_does_not_go_on(roboflow, known_link, tmp_path, other):
    roboflow.files = ["cut 1000", "500"]
    with pytest.raises(DatasetError):
        download(tmp_path)
    roboflow.files = ["whole"]
    version = other.pop("version", 3)
    download_export("harbour", "people", version, tmp_path / "out", patience=QUICK, **other)
    assert "Range" not in roboflow.asked[-1].headers


def test_an_interruption_by_the_user(roboflow, known_link, tmp_path):
    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(tmp_path, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == [".out.download"]
    download(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def packed(files: dict[str, str]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def coco(*names: str) -> str:
    return json.dumps({"images": [{"id": 1, "file_name": name} for name in names]})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"PK\3\4 and nothing", "is cut off"),
        (packed({"train/../../x.jpg": ""}), "leads out of the folder"),
        (packed({"train/_annotations.coco.json": coco("/etc/hostname")}), "leads out of its"),
        (packed({"train/_annotations.coco.json": coco("../x.jpg")}), "leads out of its"),
        (packed({"data.yaml": ""}), "holds no export in COCO format"),
    ],
)
def test_a_zip_that_is_refused_is_not_kept(roboflow, known_link, tmp_path, content, match):
    roboflow.content = content
    with pytest.raises(DatasetError, match=match) as caught:
        download(tmp_path)
    assert str(caught.value).startswith("the export of harbour/people version 3")
    assert not any(tmp_path.iterdir())


def test_missing_pictures_leave_the_zip_to_the_user(roboflow, known_link, tmp_path):
    roboflow.content = packed({"train/_annotations.coco.json": coco("a.jpg")})
    with pytest.raises(DatasetError, match="1 of the 1 pictures .* the zip is kept as") as caught:
        download(tmp_path)
    kept = tmp_path / ".out.download/export.zip"
    assert str(kept) in str(caught.value) and kept.read_bytes() == roboflow.content
    assert [path.name for path in tmp_path.iterdir()] == [".out.download"]


def test_what_is_there_is_refused_before_anybody_is_asked(roboflow, known_link, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        download(tmp_path)
    assert not roboflow.asked and not known_link
    download(tmp_path, overwrite=True)
    assert "mine.txt" not in contents(tmp_path / "out")


def test_without_a_key_nobody_is_asked(roboflow, tmp_path, monkeypatch):
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    with pytest.raises(DatasetError, match="ROBOFLOW_API_KEY is not set"):
        download(tmp_path)
    assert not roboflow.asked and not any(tmp_path.iterdir())


SECRETS = ("Abcd1234SecretKeyOfMine", "GOOGSIG4SIGNEDLINK0815", "X-Goog-Signature", "/storage/")


def told(error: BaseException) -> str:
    """Everything that an exception holds: its chain, also what `from None` hides, and its state."""
    text, waiting, seen = "", [error], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        text += f"{one!r} {one} {one.args} {vars(one)} {getattr(one, '__notes__', '')}"
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
    return text + "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "what",
    [
        "fine",
        "wrong key",
        "key in the server's words",
        "link refused",
        "broken off",
        "circle",
        "elsewhere",
        "hang",
        "no server",
        "html",
        "damaged",
    ],
)
def test_nobody_learns_the_key_or_the_link(
    roboflow, tmp_path, monkeypatch, capfd, caplog, what, request
):
    if what in ("fine", "wrong key", "key in the server's words"):
        if what == "wrong key":
            monkeypatch.setenv("ROBOFLOW_API_KEY", SECRETS[0] + "x")
        if what == "key in the server's words":
            said = f"{SECRETS[0]} used {roboflow.link} up"
            roboflow.api["export"] = (402, {"error": {"message": said}})
    else:
        request.getfixturevalue("known_link")
        roboflow.files = {
            "link refused": ["403"],
            "broken off": ["cut 1000", "500"],
            "circle": ["redirect"],
            "elsewhere": [f"redirect file:///storage/?X-Goog-Signature={SECRETS[1]}"],
            "hang": ["hang"],
            "html": ["html"],
        }.get(what, ["whole"])
        if what == "no server":
            link = f"http://127.0.0.1:9/storage/?X-Goog-Signature={SECRETS[1]}"
            found = ExportLink(link, 1)
            monkeypatch.setattr(downloading, "resolve_link", lambda *_, **__: found)
        if what == "damaged":
            roboflow.content = roboflow.content[:200] + b"?" + roboflow.content[201:]
    patience = Patience(connect=0.5, silence=0.3, tries=2, pause=0.0, poll=0.01)
    text = ""
    with caplog.at_level(logging.DEBUG):
        try:
            download(tmp_path, patience=patience)
            assert what == "fine"
        except PersondetError as error:
            text = told(error)
            assert what != "fine"
    out, err = capfd.readouterr()
    text += out + err + caplog.text + "".join(str(vars(record)) for record in caplog.records)
    for folder, _, files in os.walk(tmp_path):
        text += "".join(files)
        for file in files:
            text += (Path(folder) / file).read_bytes().decode("latin-1")
    assert not [secret for secret in SECRETS if secret.lower() in text.lower()]


def test_the_http_library_would_have_logged_the_link(roboflow, caplog):
    """The test above looks where there is something to see."""
    import requests

    with caplog.at_level(logging.DEBUG):
        requests.get(roboflow.link, timeout=5)
    assert SECRETS[1] in caplog.text
