"""Images with annotations of an export, sent to a Roboflow project for its annotators.

The `roboflow` package forms the requests, our own session carries them, as in `roboflow_link`: the
key is in no message, exception or log.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import sleep
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from persondet.data.fetch.roboflow_link import (
    SILENCE,
    STATUS_FAULTS,
    api_key,
    api_root,
    fault_sentence,
    http_fault,
    open_session,
    parsed,
    roboflow_package,
    words_of,
)
from persondet.data.roboflow import ANNOTATION_FILE, read_export
from persondet.environment import Progress
from persondet.errors import DatasetError, PartialResultError
from persondet.files import path_inside

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

_TRIES, _PAUSE = 3, 2.0  # of a request, and seconds before the next


@dataclass(frozen=True)
class ProjectName:
    """Which project is meant, as in the address app.roboflow.com/WORKSPACE/PROJECT."""

    workspace: str
    project: str

    @classmethod
    def of(cls, text: str) -> ProjectName:
        """Read "WORKSPACE/PROJECT".

        Raises: DatasetError: when it is none.
        """
        part = r"([A-Za-z0-9][A-Za-z0-9._-]{0,199})"
        match = re.fullmatch(f"{part}/{part}", text)
        if match is None:
            raise DatasetError(
                f"--upload {text!r} is no project; write WORKSPACE/PROJECT, as in the address "
                "app.roboflow.com/WORKSPACE/PROJECT."
            )
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{self.workspace}/{self.project}"


def upload_export(
    root: str | Path, project: ProjectName, *, batch: str, progress: Progress | None = None
) -> int:
    """Send the images of an export and their annotations, as predictions, to a project.

    They join the batch, where people correct them; no dataset changes. Roboflow knows an image that
    it has by its content, so that the same call may be repeated. The environment variable
    ROBOFLOW_API_KEY holds the key, and API_URL may replace the address of the API.

    Args:
        root: the export's folder.
        project: where they go.
        batch: its name on Roboflow.
        progress: called with the number of images done and of all.

    Returns: the number of images.

    Raises: DatasetError: one sentence for a fault of the key, the project, the network or Roboflow.
        PartialResultError: the same after the first image. InstallationError: when the `roboflow`
        package is not installed.
    """
    key, export = api_key(), read_export(root)
    rfapi, session = roboflow_package(), open_session(api_root())
    ask = partial(_answer, rfapi, session, project, key)
    ask(partial(rfapi.get_project, key, project.workspace, project.project))
    total = sum(len(coco["images"]) for coco in export.splits.values())
    done = 0
    for split, coco in export.splits.items():
        labels: dict[Any, list[Any]] = {image["id"]: [] for image in coco["images"]}
        for annotation in coco["annotations"]:
            labels[annotation["image_id"]].append(annotation)
        for image in coco["images"]:
            path = path_inside(export.folders[split], image["file_name"])
            own = json.dumps({**coco, "images": [image], "annotations": labels[image["id"]]})
            send = partial(rfapi.upload_image, key, project.project, str(path))
            label = partial(rfapi.save_annotation, key, project.project, ANNOTATION_FILE, own)
            try:
                sent = ask(partial(send, split="train", batch_name=batch))
                identity = sent.get("id")
                if not isinstance(identity, str) or not re.fullmatch(r"[\w-]{1,100}", identity):
                    raise fault_sentence("upload", project, key, said=words_of(sent))
                if labels[image["id"]]:
                    options = {"job_name": None, "is_prediction": True, "overwrite": True}
                    ask(partial(label, identity, **options))
            except DatasetError as error:
                if not done:
                    raise
                raise PartialResultError(
                    f"{done} of {total} images are on Roboflow; {error} The same command without "
                    "--video-input goes on."
                ) from None
            done += 1
            if progress is not None:
                progress(done, total)
    return done


def _answer(
    rfapi: Any,
    session: requests.Session,
    project: ProjectName,
    key: str,
    request: Callable[[], Any],
) -> dict[str, Any]:
    """Carry a request that the package forms, and return what the server answers.

    A fault of the server or the network gets another try.

    Raises: DatasetError: with the sentence of what went wrong.
    """
    answers: list[requests.Response] = []
    faults: list[str] = []

    def carry(method: str, address: str, **more: Any) -> requests.Response:
        ask = partial(session.request, method, address, **{**more, "timeout": SILENCE})
        faults.append(http_fault(lambda: answers.append(ask())))
        if faults[-1]:
            raise rfapi.RoboflowError(faults[-1])
        return answers[-1]

    for attempt in range(_TRIES):
        if attempt:
            sleep(_PAUSE * attempt)
        answers.clear()
        faults.clear()
        kept = rfapi.http, rfapi._upload_session, rfapi.API_URL
        rfapi.http = SimpleNamespace(get=partial(carry, "GET"))
        rfapi._upload_session = lambda: SimpleNamespace(post=partial(carry, "POST"))
        rfapi.API_URL = api_root()
        try:
            # What the package makes of an answer is not needed: it does not tell the status.
            with suppress(rfapi.RoboflowError, AttributeError):
                request()
        finally:
            rfapi.http, rfapi._upload_session, rfapi.API_URL = kept
        fault, status, content = faults[0], 0, None
        if answers:
            status, content = answers[0].status_code, parsed(answers[0].text)
        if answers and status not in (200, 409):  # 409: annotated already
            kinds = {**STATUS_FAULTS, 404: "project"}
            fault = kinds.get(status, "server" if status >= 500 else "refused")
        if fault not in ("server", "network"):
            break
    if fault or not isinstance(content, dict) or (status == 200 and content.get("error")):
        raise fault_sentence(fault or "upload", project, key, status, words_of(content))
    return content
