"""What Roboflow's API answers becomes one sentence; the `roboflow` package really asks."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from persondet.data.fetch import roboflow_link
from persondet.data.fetch.roboflow_link import VersionName, _scrubbed, api_key, resolve_link
from persondet.errors import DatasetError, InstallationError
from tests.data.fetch.conftest import KEY

NAME = VersionName("harbour", "people", 3)


def resolve(name: VersionName = NAME, key: str = KEY, **named):
    return resolve_link(name, key=key, **{"timeout": 20.0, "poll": 0.01, **named})


def sentence(name: VersionName = NAME, key: str = KEY, **named) -> str:
    with pytest.raises(DatasetError) as caught:
        resolve(name, key, **named)
    text = str(caught.value)
    assert key not in text and "http://" not in text and "\n" not in text and text.endswith(".")
    return text


def test_the_calls_and_the_link_of_a_version_that_is_still_in_the_making(roboflow):
    roboflow.generating, roboflow.exporting = 2, 3
    seen: list[tuple[str, float]] = []
    name = VersionName("harbour", "people", 3, "coco")
    found = resolve(name, on_wait=lambda *step: seen.append(step))
    assert found == roboflow.link
    assert seen == [("generating", 0.5)] * 2 + [("exporting", 0.25)] * 3
    paths = ["/harbour/people", *["/harbour/people/3"] * 3, *["/harbour/people/3/coco"] * 4]
    assert [served.path for served in roboflow.asked] == paths


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "timeout", "words"),
    [
        ({"generating": 10_000}, 1.5, "still being generated"),
        ({"exporting": 10_000}, 1.5, "still preparing the export"),
        ({"images": 0}, 20.0, "version 3 is empty: it has 0 images"),
    ],
)
def test_a_version_that_never_becomes_one(roboflow, state, timeout, words):
    vars(roboflow).update(state)
    assert words in sentence(timeout=timeout, poll=0.2)


def test_a_wrong_key_and_one_that_cannot_be_one(roboflow, monkeypatch):
    """The local server's answer holds the key."""
    text = sentence(key="wrongKey9999")
    assert "does not accept the key in ROBOFLOW_API_KEY (This API key does not exist: ***)" in text
    for value, words in (("", "is not set"), ("a&workspace=b", "characters that no key has")):
        monkeypatch.setenv("ROBOFLOW_API_KEY", value)
        with pytest.raises(DatasetError, match=words) as caught:
            api_key()
        assert "workspace=b" not in str(caught.value)
    monkeypatch.setenv("ROBOFLOW_API_KEY", f" {KEY}\n")
    assert api_key() == KEY


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
        ("export", 200, {"export": {"link": "file:///etc/hostname"}}, "is not understood"),
        ("project", 200, "<html>sign in", "is not understood"),
    ],
)
def test_what_the_server_refuses(roboflow, step, status, body, words):
    roboflow.api[step] = (status, body)
    assert re.search(re.escape(words).replace(r"\.\*", ".*"), sentence())


@pytest.mark.slow
def test_a_fault_that_passes_is_not_one(roboflow):
    roboflow.api["version"] = (500, "")
    threading.Timer(0.6, roboflow.api.clear).start()
    assert resolve(poll=0.5) == roboflow.link


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("ghost", "people", 3), "no workspace ghost"),
        (("harbour", "ghost", 3), "workspace harbour has no project ghost"),
        (("harbour", "people", 2), "people has no version 2; its newest versions are 1, 3"),
    ],
)
def test_unknown_names_are_told_apart(roboflow, fields, words):
    assert words in sentence(VersionName(*fields))


def test_a_server_that_hangs_and_none(roboflow, monkeypatch):
    roboflow.api["version"] = "hang"
    start = time.monotonic()
    assert "did not answer in time" in sentence(silence=0.3)
    assert time.monotonic() - start < 10
    monkeypatch.setenv("API_URL", "nonsense")
    assert "address in API_URL" in sentence()


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("import time\ntime.sleep(30)", "did not answer in time"),
        ("raise ModuleNotFoundError('no roboflow')", "roboflow package is not installed"),
        (f"import sys\nprint('{KEY}')\nraise RuntimeError('{KEY}')", "(RuntimeError)"),
        ("import os\nos._exit(3)", "failed while it looked up harbour/people version 3;"),
    ],
)
def test_whatever_the_package_does(roboflow, monkeypatch, tmp_path, capfd, package, words):
    """The caller waits no longer than it said, and nothing of the key comes out."""
    (tmp_path / "roboflow.py").write_text(package)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(roboflow_link, "_GRACE", 0.0)
    start = time.monotonic()
    with pytest.raises((DatasetError, InstallationError)) as caught:
        resolve(timeout=2.0 if "sleep" in package else 20.0)
    assert words in str(caught.value) and KEY not in str(caught.value)
    assert time.monotonic() - start < 15
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("a/b", "people", 3), "--workspace 'a/b'"),
        (("", "people", 3), "--workspace ''"),
        (("harbour", "../x", 3), "--project '../x'"),
        (("harbour", "x?y=1", 3), "--project"),
        (("harbour", "people", 0), "--version 0"),
        (("harbour", "people", True), "--version True"),
        (("harbour", "people", 3, "yolov8"), "--format 'yolov8' cannot be read"),
    ],
)
def test_names_that_are_none(fields, words):
    with pytest.raises(DatasetError) as caught:
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
    """Looks at every process of this machine while the server holds the answer back."""
    roboflow.api["version"] = "hang"
    seen: list[bytes] = []

    def look() -> None:
        while "/harbour/people/3" not in [served.path for served in roboflow.asked]:
            time.sleep(0.05)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_bytes()
                if b"fetch.roboflow_link" in command:
                    seen.extend([command, (folder / "environ").read_bytes()])
            except OSError:
                continue

    looker = threading.Thread(target=look)
    looker.start()
    sentence(silence=1.5)
    looker.join()
    assert len(seen) >= 2 and not any(KEY.encode() in text for text in seen)
