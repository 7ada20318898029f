"""An export that is sent to a project: what the server gets, and what it may refuse."""

import json
import re

import mine_frames
import pytest

from persondet.data.fetch import roboflow_upload
from persondet.data.fetch.roboflow_upload import ProjectName, upload_export
from persondet.data.roboflow import read_export
from persondet.errors import DatasetError, PartialResultError
from tests.data.fetch.conftest import KEY

PROJECT = ProjectName("harbour", "people")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(roboflow_upload, "_PAUSE", 0.01)


def send(root, project=PROJECT):
    return upload_export(root, project, batch="to label")


def refused(root, kind=DatasetError, project=PROJECT):
    with pytest.raises(kind) as caught:
        send(root, project)
    text = str(caught.value)
    assert KEY not in text and "http://" not in text and text.isprintable() and text[-1] == "."
    return text


def test_each_image_arrives_with_its_own_annotations_as_predictions(roboflow, tiny_export):
    assert send(tiny_export) == 12
    export = read_export(tiny_export)
    assert len(roboflow.uploads) == 12
    for split, coco in export.splits.items():
        for image in coco["images"]:
            content, query = roboflow.uploads[image["file_name"]]
            assert (export.folders[split] / image["file_name"]).read_bytes() in content
            assert query["batch"] == "to label"
            own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            identity = f"id-{list(roboflow.uploads).index(image['file_name'])}"
            if not own:
                assert identity not in roboflow.annotations
                continue
            body, query = roboflow.annotations[identity]
            labels = json.loads(json.loads(body)["annotationFile"])
            assert labels["annotations"] == own and labels["images"] == [image]
            assert labels["categories"] == coco["categories"]
            assert query["prediction"] == "true" and query["name"].endswith(".json")


def test_a_fault_of_the_server_gets_another_try_and_an_annotated_image_is_no_fault(
    roboflow, tiny_export
):
    roboflow.faults = 2
    taken = {"error": {"message": "image already annotated"}}
    roboflow.api["annotate"] = (409, taken)
    assert send(tiny_export) == 12


@pytest.mark.parametrize(
    ("step", "answer", "words"),
    [
        ("project", (403, {"error": "Forbidden"}), r"may not read harbour/people \(Forbidden\)"),
        ("project", (404, {"error": "no"}), "no project people in a workspace harbour"),
        ("upload", (402, {"error": {"message": f"Upgrade {KEY}"}}), r"plan .*\(Upgrade \*\*\*\)"),
        ("upload", (200, {"error": "too dark"}), "did not take an image .*too dark"),
        ("upload", (200, {"id": "../x"}), "did not take an image"),
        ("upload", (503, "<html>"), r"fault of its own \(status 503\)"),
        ("annotate", (400, {"error": "no such class"}), "refuses .*no such class"),
    ],
)
def test_what_the_server_refuses(roboflow, tiny_export, step, answer, words):
    roboflow.api[step] = answer
    assert re.search(words, refused(tiny_export))


def test_what_stops_halfway_says_how_far_it_came(roboflow, tiny_export):
    roboflow.uploads_allowed = 5
    text = refused(tiny_export, PartialResultError)
    assert text.startswith("5 of 12 images are on Roboflow; Roboflow's limit of requests")
    roboflow.uploads_allowed = 100
    assert send(tiny_export) == 12 and len(roboflow.uploads) == 12


def test_the_tool_sends_a_folder_that_is_there(roboflow, tiny_export, capsys):
    words = ["--output", str(tiny_export), "--upload", "harbour/people", "--batch", "new"]
    assert mine_frames.main(words) == 0
    assert capsys.readouterr().out == "12 images are in the batch 'new' of harbour/people\n"
    assert {query["batch"] for _, query in roboflow.uploads.values()} == {"new"}


def test_keys_names_and_no_server(roboflow, tiny_export, monkeypatch):
    for text in ("harbour", "harbour/people/3", "../people", "a/b?c", "a/"):
        with pytest.raises(DatasetError, match="WORKSPACE/PROJECT"):
            ProjectName.of(text)
    assert ProjectName.of("harbour/people") == PROJECT
    monkeypatch.setenv("API_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in refused(tiny_export)
    monkeypatch.delenv("ROBOFLOW_API_KEY")
    assert "ROBOFLOW_API_KEY is not set" in refused(tiny_export)
