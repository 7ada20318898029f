"""Fixtures that all tests share."""

import functools
import gc
import hashlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import cli
import cv2
import numpy as np
import pytest
from hypothesis import settings

cli.set_environment()  # it is read when torch is loaded, and by the tools that tests start

# What the tests import lives as long as the process: see `pytest_collection_finish`.
gc.disable()

# A background job inherits "ignore Ctrl-C", and hands it on; many tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure: nothing is timed in tests.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Take back the log's handlers that a test added: they write to a stream that ends with it."""
    logs = [logging.getLogger(name) for name in ("persondet", "detectron2", "fvcore")]
    before = [(log.handlers[:], log.level, log.propagate) for log in logs]
    yield
    for log, (handlers, level, propagate) in zip(logs, before, strict=True):
        log.handlers[:], log.propagate = handlers, propagate
        log.setLevel(level)


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Roboflow COCO export, 6/3/3 images of 96 x 64 pixels; `export_writer` makes others."""
    root: Path = tmp_path_factory.mktemp("tiny") / "export"
    write_export(root)
    return root


@pytest.fixture
def small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let timm build its smallest Swin, which has 28 million parameters, with a few thousand."""
    from timm.models import _registry

    entries, name = _registry._model_entrypoints, "swin_tiny_patch4_window7_224"
    shape = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 2, 4)}
    monkeypatch.setitem(entries, name, functools.partial(entries[name], **shape))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real inputs, from PERSONDET_REAL_DATA; tests without it are skipped."""
    folder = os.environ.get("PERSONDET_REAL_DATA", "")
    if not folder:
        pytest.skip("PERSONDET_REAL_DATA is not set: no real inputs to try")
    return Path(folder)


@pytest.fixture(scope="session")
def export_writer() -> Callable[..., None]:
    """The function `write_export(root, counts=None, *, size=(96, 64), seed=0)`."""
    return write_export


def write_export(
    root: Path,
    counts: Mapping[str, int] | None = None,
    *,
    size: tuple[int, int] = (96, 64),
    seed: int = 0,
) -> None:
    """Write an export of bright octagons, none in the last training image; `area` is box area."""
    rng = np.random.default_rng(seed)
    counts = {"train": 6, "valid": 3, "test": 3} if counts is None else counts
    for split, count in counts.items():
        folder = root / split
        folder.mkdir(parents=True)
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            people = 0 if split == "train" and number == count - 1 else int(rng.integers(1, 4))
            pixels, polygons = _scene(rng, size, people)
            digest = hashlib.md5(f"{split}{number}{seed}".encode()).hexdigest()
            name = f"scene_{number}_{split}_jpg.rf.{digest}.jpg"  # a source of its own
            cv2.imwrite(str(folder / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
            width, height = size
            facts = {"id": number, "file_name": name, "license": 1}
            images.append(facts | {"width": width, "height": height})
            for polygon in polygons:
                low, high = polygon.min(axis=0), polygon.max(axis=0)
                annotation = {"id": len(annotations), "image_id": number, "category_id": 1}
                annotation |= {"segmentation": [polygon.reshape(-1).tolist()], "iscrowd": 0}
                annotation["bbox"] = [*low.tolist(), *(high - low).tolist()]
                annotations.append(annotation | {"area": float((high - low).prod())})
        coco: dict[str, Any] = {"images": images, "annotations": annotations}
        coco["info"] = {"description": "octagons"}
        coco["licenses"] = [{"id": 1, "name": "CC0", "url": ""}]
        coco["categories"] = [
            {"id": 0, "name": "people", "supercategory": "none"},
            {"id": 1, "name": "person", "supercategory": "people"},
        ]
        (folder / "_annotations.coco.json").write_text(json.dumps(coco))


def _scene(
    rng: np.random.Generator, size: tuple[int, int], people: int
) -> tuple[np.ndarray[Any, Any], list[np.ndarray[Any, Any]]]:
    """An image (H, W, 3) uint8 BGR, and its people as polygons (8, 2) in continuous coordinates."""
    width, height = size
    pixels = rng.integers(60, 90, (height, width, 3), dtype=np.uint8)
    polygons = []
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    for _ in range(people):
        half = np.array([rng.uniform(5, 9), rng.uniform(10, 18)])
        centre = rng.uniform(half, np.array(size) - half)
        polygon = np.round(centre + half * np.stack([np.cos(angles), np.sin(angles)], axis=1), 2)
        color = [int(value) for value in rng.integers(170, 255, 3)]
        cv2.fillPoly(pixels, [np.round((polygon - 0.5) * 16).astype(np.int32)], color, shift=4)
        polygons.append(polygon)
    return pixels, polygons


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that train: the processes then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """From here on there is garbage; all that was imported is passed over."""
    gc.freeze()
    gc.enable()
