"""What Roboflow's API answers becomes one sentence."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from persondet.data.fetch import roboflow_link
from persondet.data.fetch.roboflow_link import VersionName, api_key, resolve_link
from persondet.errors import DatasetError
from tests.data.fetch.conftest import KEY

NAME = VersionName("harbour", "people", 3)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(roboflow_link, "_POLL", 0.01)


def sentence(name=NAME, key=KEY, timeout=20.0):
    with pytest.raises(DatasetError) as caught:
        resolve_link(name, key=key, timeout=timeout)
    text = str(caught.value)
    assert key not in text and "http://" not in text and "\n" not in text and text.endswith(".")
    return text


def test_the_questions_and_the_link_of_a_version_that_is_still_in_the_making(roboflow):
    roboflow.generating, roboflow.exporting, roboflow.faults = 2, 3, 2
    seen = []
    name = VersionName("harbour", "people", 3, "coco")
    found = resolve_link(name, key=KEY, timeout=20.0, on_wait=lambda *step: seen.append(step))
    assert found == roboflow.link
    assert seen == [("generating", 0.5)] * 2 + [("exporting", 0.25)] * 3
    # Two answers of a fault are asked for again.
    paths = ["/harbour/people"] * 3 + ["/harbour/people/3"] * 3 + ["/harbour/people/3/coco"] * 4
    assert [served.path for served in roboflow.asked] == paths


@pytest.mark.parametrize(
    ("step", "answer", "words"),
    [
        ("project", (403, {"error": "Forbidden"}), "may not read .*Forbidden"),
        ("export", (402, {"error": {"message": "Upgrade"}}), "quota.*Upgrade"),
        ("version", (429, "slow down"), r"limit of requests .*\(slow down\)"),
        ("project", (502, "<html>bad"), r"fault of its own \(status 502\);"),
        ("version", (404, {"error": "gone"}), "people has no version 3; generate"),
        ("export", (404, {"error": "no"}), "no export .* coco-segmentation"),
        ("export", (200, {"export": {"link": "file:///x"}}), "not understood"),
        ("project", (200, "<html>sign in"), "not understood"),
    ],
)
def test_what_the_server_refuses(roboflow, step, answer, words):
    roboflow.api[step] = answer
    assert re.search(words, sentence())


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"generating": 10_000}, "still being generated"),
        ({"exporting": 10_000}, "still preparing the export"),
        ({"images": 0}, "version 3 is empty: it has 0 images"),
    ],
)
def test_a_version_that_is_not_ready(roboflow, state, words):
    vars(roboflow).update(state)
    assert words in sentence(timeout=0.1)
    assert "no project ghost in a workspace harbour" in sentence(VersionName("harbour", "ghost", 3))
    unknown = VersionName("harbour", "people", 2)
    assert "people has no version 2; its newest versions are 1, 3" in sentence(unknown)


def test_a_server_that_hangs_and_none(roboflow, monkeypatch):
    roboflow.api["version"] = "hang"
    monkeypatch.setattr(roboflow_link, "SILENCE", 0.1)
    assert "did not answer in time" in sentence()
    monkeypatch.setenv("API_URL", "nonsense")
    assert "address in API_URL" in sentence()
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in sentence()


def test_the_key_and_the_server_s_words_about_it(roboflow, monkeypatch):
    said = "This API key does not exist: ***"
    assert f"the key in ROBOFLOW_API_KEY ({said})" in sentence(key="wrongKey9999")
    words = f"{KEY} {KEY.upper()} https://x.y/z?k=1 api_key=abc\n\x1b[31mred {'word ' * 500}"
    roboflow.api["export"] = (402, {"error": words})
    text = sentence().lower()
    assert KEY.lower() not in text and "x.y" not in text and "abc" not in text and len(text) < 400
    assert text.isprintable() and "[31mred" in text
    for value, fault in (("", "is not set"), ("a&workspace=b", "characters that no key has")):
        monkeypatch.setenv("ROBOFLOW_API_KEY", value)
        with pytest.raises(DatasetError, match=fault) as caught:
            api_key()
        assert "workspace=b" not in str(caught.value)
    monkeypatch.setenv("ROBOFLOW_API_KEY", f" {KEY}\n")
    assert api_key() == KEY


def test_names_that_are_none():
    for flag, field in (("workspace", "a/b"), ("project", "../x"), ("version", 0)):
        with pytest.raises(DatasetError, match=f"--{flag} {field!r}"):
            replace(NAME, **{flag: field})
    with pytest.raises(DatasetError, match="--format 'yolov8'"):
        VersionName("harbour", "people", 3, "yolov8")
