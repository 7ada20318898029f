"""What Roboflow's API answers becomes one sentence; the `roboflow` package really asks."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from persondet.data.fetch.export_link import (
    VersionName,
    _scrubbed,
    api_key,
    resolve_link,
)
from persondet.errors import DatasetError, InstallationError

NAME = VersionName("harbour", "people", 3)
KEY = "Abcd1234SecretKeyOfMine"


def resolve(name: VersionName = NAME, key: str = KEY, **named):
    return resolve_link(name, key=key, **{"timeout": 20.0, "poll": 0.01, **named})


def sentence(name: VersionName = NAME, key: str = KEY, **named) -> str:
    with pytest.raises(DatasetError) as caught:
        resolve(name, key, **named)
    text = str(caught.value)
    assert key not in text and "http://" not in text and "\n" not in text and text.endswith(".")
    return text


def test_the_calls_and_the_link(roboflow):
    found = resolve(VersionName("harbour", "people", 3, "coco"))
    assert found.link == roboflow.link and found.images == 12
    assert [served.path for served in roboflow.asked] == [
        "/harbour/people",
        "/harbour/people/3",
        "/harbour/people/3/coco",
    ]
    assert roboflow.link not in repr(found)


def test_a_version_in_the_making_is_waited_for(roboflow):
    roboflow.generating, roboflow.exporting = 2, 3
    seen: list[tuple[str, float]] = []
    assert resolve(on_wait=lambda *step: seen.append(step)).link == roboflow.link
    assert seen == [("generating", 0.5)] * 2 + [("exporting", 0.25)] * 3


@pytest.mark.slow
@pytest.mark.parametrize("what", ["generating", "exporting"])
def test_waiting_ends(roboflow, what):
    setattr(roboflow, what, 10_000)
    words = {"generating": "still being generated", "exporting": "still preparing the export"}
    assert f"{words[what]}" in sentence(timeout=0.8, poll=0.2)


def test_an_empty_version(roboflow):
    roboflow.images = 0
    assert "version 3 is empty: it has 0 images" in sentence()


def test_a_wrong_key_in_the_servers_own_words(roboflow):
    """The server's answer holds the key, as the local server's does."""
    text = sentence(key="wrongKey9999")
    assert "does not accept the key in ROBOFLOW_API_KEY (This API key does not exist: ***)" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "status", "body", "words"),
    [
        ("project", 403, {"error": "Forbidden"}, "may not read harbour/people (Forbidden)"),
        ("export", 402, {"error": {"message": "Upgrade"}}, "plan or quota .* (Upgrade)"),
        ("version", 429, "slow down", "limit of requests is reached (slow down); wait"),
        ("project", 502, "<html>bad gateway", "a fault of its own (status 502);"),
        ("version", 404, {"error": "gone"}, "harbour/people has no version 3; generate it"),
        ("export", 404, {"error": "no"}, "no export of .* in the format coco-segmentation"),
        ("export", 400, {"error": "bad", "hint": "x"}, "refuses the request .*(status 400) (bad)"),
        ("export", 200, {"export": {}}, "is not understood"),
        ("export", 200, {"export": {"link": "file:///etc/hostname"}}, "is not understood"),
        ("project", 200, "<html>sign in", "is not understood"),
    ],
)
def test_what_the_server_refuses(roboflow, step, status, body, words):
    roboflow.api[step] = (status, body)
    pattern = re.escape(words).replace(r"\.\*", ".*")
    assert re.search(pattern, sentence())


@pytest.mark.slow
def test_a_fault_that_passes_is_not_one(roboflow):
    roboflow.api["version"] = (500, "")
    waits: list[str] = []
    threading.Timer(0.6, roboflow.api.clear).start()
    assert resolve(poll=0.5, on_wait=lambda what, _: waits.append(what)).link == roboflow.link


def test_unknown_names_are_told_apart(roboflow):
    assert "no workspace ghost" in sentence(VersionName("ghost", "people", 3))
    assert "workspace harbour has no project ghost" in sentence(VersionName("harbour", "ghost", 3))
    text = sentence(VersionName("harbour", "people", 2))
    assert "harbour/people has no version 2; its newest versions are 1, 3" in text


def test_a_server_that_hangs(roboflow):
    roboflow.api["version"] = "hang"
    start = time.monotonic()
    assert "did not answer in time" in sentence(silence=0.3)
    assert time.monotonic() - start < 5


@pytest.mark.slow
def test_a_process_that_hangs_is_killed(roboflow, monkeypatch, tmp_path):
    """Whatever the package does, the caller waits no longer than it said."""
    from persondet.data.fetch import export_link

    (tmp_path / "roboflow.py").write_text("import time\ntime.sleep(30)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(export_link, "_GRACE", 0.0)
    start = time.monotonic()
    assert "did not answer in time" in sentence(timeout=1.0)
    assert time.monotonic() - start < 4


@pytest.mark.slow
def test_no_network(roboflow, monkeypatch):
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in sentence()
    monkeypatch.setenv("API_URL", "nonsense")
    assert "address in API_URL" in sentence()


def test_without_the_package(roboflow, monkeypatch, tmp_path):
    (tmp_path / "roboflow.py").write_text("raise ModuleNotFoundError('no roboflow')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InstallationError, match="roboflow package is not installed"):
        resolve()


@pytest.mark.slow
def test_a_package_that_is_broken(roboflow, monkeypatch, tmp_path, capfd):
    code = (
        f"import sys\nprint('{KEY}')\nprint('{KEY}', file=sys.stderr)\nraise RuntimeError('{KEY}')"
    )
    (tmp_path / "roboflow.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "failed while it looked up harbour/people version 3 (RuntimeError)" in sentence()
    assert capfd.readouterr() == ("", "")
    (tmp_path / "roboflow.py").write_text("import os\nos._exit(3)")
    assert "failed while it looked up" in sentence()


def test_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    with pytest.raises(DatasetError, match="ROBOFLOW_API_KEY is not set"):
        api_key()
    monkeypatch.setenv("ROBOFLOW_API_KEY", f" {KEY}\n")
    assert api_key() == KEY
    monkeypatch.setenv("ROBOFLOW_API_KEY", "a&workspace=b")
    with pytest.raises(DatasetError, match="characters that no key has") as caught:
        api_key()
    assert "workspace=b" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("a/b", "people", 3), "--workspace 'a/b'"),
        (("harbour", "../x", 3), "--project '../x'"),
        (("harbour", "x?y=1", 3), "--project"),
        (("", "people", 3), "--workspace ''"),
        (("harbour", "people", 0), "--version 0"),
        (("harbour", "people", True), "--version True"),
        (("harbour", "people", 3, "yolov8"), "--format 'yolov8' cannot be read"),
    ],
)
def test_names_that_are_none(fields, words):
    with pytest.raises(DatasetError, match="--") as caught:
        VersionName(*fields)
    assert words in str(caught.value)


def test_words_of_a_server_are_scrubbed():
    said = f"key={KEY} {KEY.upper()} https://x.y/z?k=1 api_key=abc\n\x1b[31mred"
    text = _scrubbed(said, KEY)
    assert KEY.lower() not in text.lower() and "x.y" not in text and "abc" not in text
    assert text.isprintable() and text.endswith("[31mred")
    assert len(_scrubbed("word " * 500, KEY)) == 200
    assert _scrubbed("abc", "a") == ""


@pytest.mark.slow
def test_nothing_of_the_key_is_on_a_command_line(roboflow):
    """Every process of this machine is looked at while the server holds the answer back."""
    roboflow.api["version"] = "hang"
    seen: list[bytes] = []

    def look() -> None:
        time.sleep(0.8)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                if b"link_process.py" in command:
                    seen.extend([command, (folder / "environ").read_bytes()])
            except OSError:
                continue

    looker = threading.Thread(target=look)
    looker.start()
    sentence(silence=1.5)
    looker.join()
    assert len(seen) >= 2 and not any(KEY.encode() in text for text in seen)
