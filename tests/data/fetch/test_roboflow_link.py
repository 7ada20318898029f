"""What Roboflow's API answers becomes one sentence."""

from __future__ import annotations

import re

import pytest

from persondet.data.fetch import roboflow_link
from persondet.data.fetch.roboflow_link import VersionName, api_key, resolve_link
from persondet.errors import DatasetError
from tests.data.fetch.conftest import KEY

NAME = VersionName("harbour", "people", 3)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(roboflow_link, "_POLL", 0.01)


def sentence(name: VersionName = NAME, key: str = KEY, timeout: float = 20.0) -> str:
    with pytest.raises(DatasetError) as caught:
        resolve_link(name, key=key, timeout=timeout)
    text = str(caught.value)
    assert key not in text and "http://" not in text and "\n" not in text and text.endswith(".")
    return text


def test_the_questions_and_the_link_of_a_version_that_is_still_in_the_making(roboflow):
    roboflow.generating, roboflow.exporting = 2, 3
    seen: list[tuple[str, float]] = []
    name = VersionName("harbour", "people", 3, "coco")
    found = resolve_link(name, key=KEY, timeout=20.0, on_wait=lambda *step: seen.append(step))
    assert found == roboflow.link
    assert seen == [("generating", 0.5)] * 2 + [("exporting", 0.25)] * 3
    paths = ["/harbour/people", *["/harbour/people/3"] * 3, *["/harbour/people/3/coco"] * 4]
    assert [served.path for served in roboflow.asked] == paths


@pytest.mark.parametrize(
    ("state", "timeout", "words"),
    [
        ({"generating": 10_000}, 0.1, "still being generated"),
        ({"exporting": 10_000}, 0.1, "still preparing the export"),
        ({"images": 0}, 9.0, "version 3 is empty: it has 0 images"),
        ({"api": {"project": (403, {"error": "Forbidden"})}}, 9.0, "may not read .*Forbidden"),
        ({"api": {"export": (402, {"error": {"message": "Upgrade"}})}}, 9.0, "quota.*Upgrade"),
        ({"api": {"version": (429, "slow down")}}, 9.0, r"limit of requests .*\(slow down\)"),
        ({"api": {"project": (502, "<html>bad")}}, 9.0, r"fault of its own \(status 502\);"),
        ({"api": {"version": (404, {"error": "gone"})}}, 9.0, "people has no version 3; generate"),
        ({"api": {"export": (404, {"error": "no"})}}, 9.0, "no export .* coco-segmentation"),
        ({"api": {"export": (400, {"error": "bad"})}}, 9.0, r"refuses .*\(status 400\) \(bad\)"),
        ({"api": {"export": (200, {"export": {"link": "file:///x"}})}}, 9.0, "not understood"),
        ({"api": {"export": (200, {"done": 1})}}, 9.0, "not understood"),
        ({"api": {"project": (200, "<html>sign in")}}, 9.0, "is not understood"),
    ],
)
def test_what_the_server_refuses(roboflow, state, timeout, words):
    vars(roboflow).update(state)
    assert re.search(words, sentence(timeout=timeout))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("ghost", "people", 3), "no project people in a workspace ghost"),
        (("harbour", "ghost", 3), "no project ghost in a workspace harbour"),
        (("harbour", "people", 2), "people has no version 2; its newest versions are 1, 3"),
    ],
)
def test_unknown_names(roboflow, fields, words):
    assert words in sentence(VersionName(*fields))


def test_a_fault_that_passes_is_not_one(roboflow):
    roboflow.faults = 2
    assert resolve_link(NAME, key=KEY, timeout=20.0) == roboflow.link


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


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (("a/b", "people", 3), "--workspace 'a/b'"),
        (("harbour", "../x", 3), "--project '../x'"),
        (("harbour", "people", 0), "--version 0"),
        (("harbour", "people", 3, "yolov8"), "--format 'yolov8' cannot be read"),
    ],
)
def test_names_that_are_none(fields, words):
    with pytest.raises(DatasetError) as caught:
        VersionName(*fields)
    assert words in str(caught.value)
