"""An exported model: as the model itself, without PyTorch, and refused when it is not."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import bm_agreement
import cv2
import numpy as np
import pytest
import torch
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import persondet.export as export
from persondet.errors import CheckpointError, ConfigError, DatasetError, OutputExistsError
from persondet.export import compare, exact_predictor, export_model, write_model
from persondet.inference.masks import paste_arrays, paste_masks
from persondet.inference.predictor import _instances, load_predictor
from persondet.onnx_predictor import (
    ArrayInstances,
    OnnxPredictor,
    _resize_rows,
    resized_shape,
    seal,
)
from tests.inference.tiny_model import save_run, tiny_cfg

ROOT = Path(__file__).resolve().parents[1]
side = st.one_of(st.integers(1, 5), st.integers(1, 90))


@settings(max_examples=25)
@given(side, side, side, st.integers(0, 2**32))
def test_rows_are_resized_as_by_pillow_to_the_last_bit(rows, columns, size, seed):
    image = np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), np.uint8)
    expected = Image.fromarray(image).resize((columns, size), Image.Resampling.BILINEAR)
    assert np.array_equal(_resize_rows(image, size), np.asarray(expected))


@settings(max_examples=25)
@given(
    st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(0, 9), (352, 640), (800, 1333)])
)
def test_the_size_is_that_of_detectron2s_shortest_edge(height, width, limits):
    image = np.broadcast_to(np.uint8(0), (height, width, 3))
    transform = ResizeShortestEdge([limits[0]] * 2, limits[1]).get_transform(image)
    expected = (transform.new_h, transform.new_w) if limits[0] else (height, width)
    assert resized_shape(height, width, *limits) == tuple(max(1, side) for side in expected)


def test_masks_are_pasted_from_arrays_as_from_tensors():
    rng = np.random.default_rng(0)
    grids = rng.random((40, 28, 28), np.float32)
    corners = rng.uniform(-9, 80, (40, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    ours = paste_arrays(grids, boxes, (60, 70))
    expected = paste_masks(torch.from_numpy(grids), torch.from_numpy(boxes), (60, 70))
    different = sum((ours.whole(i) != expected.whole(i)).sum() for i in range(40))
    assert sum(region.sum() for region in ours.regions) > 5000 and different <= 1


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a tiny model with random weights, whose threshold is its sixth score on noise."""
    torch.manual_seed(0)
    cfg = tiny_cfg()
    folder = save_run(tmp_path_factory.mktemp("run"), build_model(cfg), cfg, "worker")
    return folder


@pytest.fixture(scope="module")
def exported(run):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = run / "model.onnx"
    write_model(exact_predictor(run), path)
    return path


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.slow
def test_a_file_detects_what_its_model_does_whatever_the_size(run, exported):
    eager = exact_predictor(run)
    # Random weights find 100 people in everything; a threshold leaves some.
    (found,) = eager.predict_frames([noise(96, 128)])
    least = float(found.scores[6]) + 1e-6
    predictor, eager = OnnxPredictor(exported, confidence_threshold=least), asked(run, least)
    sizes = [(96, 128), (128, 96), (1, 1), (300, 17), (97, 203), (480, 640), (1, 2), (96, 128)]
    rows = [compare(eager, predictor, "", noise(*size)) for size in sizes]
    predictor.confidence_threshold = 1.0  # nobody, then people again
    assert predictor(noise(96, 128)).pred_masks.shape == (0, 96, 128)
    predictor.confidence_threshold = least
    rows.append(compare(eager, predictor, "", noise(96, 128)))
    assert [row for row in rows if not row.holds] == []
    assert rows[0].detections == 6 and rows[0] == rows[-1]


def asked(run, threshold):
    cfg = exact_predictor(run).cfg
    return export.Predictor(cfg, confidence_threshold=threshold)


@pytest.mark.slow
def test_arrays_stand_for_instances(run, exported):
    image = noise(96, 128)
    predictor, instances = OnnxPredictor(exported), load_predictor(model=exported)
    whole, frame = predictor(image), predictor.predict_frames([image])[0]
    expected = instances(image)
    assert (whole.image_size, len(whole)) == (expected.image_size, len(expected)) != ((96, 128), 0)
    assert np.array_equal(whole.pred_boxes, expected.pred_boxes.tensor)
    assert np.array_equal(whole.pred_masks, expected.pred_masks)
    assert (whole.pred_boxes.dtype, whole.pred_classes.dtype) == (np.float32, np.int64)
    assert whole.has("pred_masks") and not whole.has("roi_masks") and frame.has("roi_masks")
    some = whole[whole.scores > np.median(whole.scores)]
    assert 0 < len(some) < len(whole) and some.pred_masks.shape == (len(some), 96, 128)
    assert predictor.class_names == ("worker",) == tuple(instances.metadata.thing_classes)
    assert predictor.model_file == instances.model_file == f"{run.name}/model_best.pth"
    assert predictor.confidence_threshold == instances.confidence_threshold == 0.5
    assert instances.workers >= 1 and len(instances.digest) == 64
    with pytest.raises(ValueError, match="uint8"):
        predictor(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(ConfigError, match="from 0 to 1"):
        OnnxPredictor(exported, confidence_threshold=1.5)


ALONE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        known = {*sys.stdlib_module_names, "numpy", "onnxruntime", "persondet", "flatbuffers"}
        if name.partition(".")[0] not in {*known, "google", "packaging", "coloredlogs"}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Nothing())
import numpy as np
from persondet.onnx_predictor import OnnxPredictor
image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
found = OnnxPredictor(sys.argv[1])(image)
np.savez(sys.argv[2], boxes=found.pred_boxes, scores=found.scores, masks=found.pred_masks)
print([name for name in ("torch", "detectron2", "PIL", "cv2") if name in sys.modules])
"""


@pytest.mark.slow
def test_numpy_and_onnx_runtime_are_enough(exported, tmp_path):
    command = [sys.executable, "-c", ALONE, exported, tmp_path / "found.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    with np.load(tmp_path / "found.npz") as alone:
        here = OnnxPredictor(exported)(noise(96, 128))
        assert len(here) > 0
        for name, value in alone.items():
            wanted = {"boxes": here.pred_boxes, "scores": here.scores, "masks": here.pred_masks}
            assert np.array_equal(value, wanted[name])


@pytest.mark.slow
def test_the_lines_in_the_documentation_need_nothing_of_ours(exported, tmp_path):
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.S) if "sys.argv" in c)
    assert len(code.splitlines()) <= 40 and not re.search(
        "import (persondet|torch|detectron2)", code
    )
    image = cv2.blur(noise(96, 128) // 2, (9, 9))
    cv2.imwrite(str(tmp_path / "in.png"), image)
    (tmp_path / "detect.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "detect.py", exported, "in.png", "out.png"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = OnnxPredictor(exported)(image)
    printed = [line.split() for line in done.stdout.splitlines()]
    assert len(printed) == len(found) > 0 and {words[0] for words in printed} == {"worker"}
    numbers = np.array([[float(word) for word in words[1:]] for words in printed])
    assert np.abs(numbers[:, 0] - found.scores).max() <= 1e-4
    assert np.abs(numbers[:, 1:] - found.pred_boxes).max() <= 0.01
    painted = (cv2.imread(str(tmp_path / "out.png")) == (0, 0, 255)).all(axis=2)
    assert (painted != found.pred_masks.any(axis=0)).sum() <= 2 and painted.any()


def broken(content):
    changed = bytearray(content)
    changed[len(content) // 2] ^= 1
    return bytes(changed)


def foreign(onnx):
    node = onnx.helper.make_node("Identity", ["a"], ["b"])
    kind = onnx.TensorProto.FLOAT
    a, b = (onnx.helper.make_tensor_value_info(name, kind, [1]) for name in "ab")
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "other", [a], [b]))
    return model.SerializeToString()


@pytest.mark.slow
def test_what_is_no_model_file_is_one_sentence(exported, tmp_path):
    onnx, content = pytest.importorskip("onnx"), exported.read_bytes()
    no_onnx, other = b"\x08\x07 no protobuf", foreign(onnx)
    cases = {
        "": "damaged",
        "text": "damaged",
        content[: len(content) // 2]: "damaged",
        broken(content): "damaged",
        content + b"x": "damaged",
        other: "damaged",
        other + seal(other): "another version",
        no_onnx + seal(no_onnx): "ONNX Runtime refuses it",
    }
    for number, (what, told) in enumerate(cases.items()):
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(what.encode() if isinstance(what, str) else what)
        with pytest.raises(CheckpointError, match=told) as caught:
            OnnxPredictor(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            OnnxPredictor(path)


class Shifted(OnnxPredictor):
    """An exported model whose boxes are off by two hundredths of a pixel."""

    def predict_frames(self, images):
        return [replace(f, pred_boxes=f.pred_boxes + 0.02) for f in super().predict_frames(images)]


@pytest.mark.slow
def test_a_file_that_does_not_agree_is_not_written(
    run, exported, tiny_export, tmp_path, monkeypatch
):
    told, output = [], tmp_path / "out" / "model.onnx"
    monkeypatch.setattr(export, "write_model", lambda _, path: shutil.copy(exported, path))
    with pytest.raises(ConfigError, match="ends with"):
        export_model(run, tmp_path / "model.pt", told.append)
    with pytest.raises(DatasetError, match="--dataset"):
        export_model(run, output, told.append, dataset=tmp_path / "nowhere")
    with monkeypatch.context() as patch:
        patch.setattr(export, "OnnxPredictor", Shifted)
        with pytest.raises(CheckpointError, match=r"not written.*in 3 of 3 images"):
            export_model(run, output, told.append, dataset=tiny_export, count=2)
    assert not output.parent.exists() or list(output.parent.iterdir()) == []
    assert told[-1].count("differs") == 3
    rows = export_model(run, output, told.append, dataset=tiny_export, count=2)
    assert [row.image for row in rows][1] == "an empty image" and all(row.holds for row in rows)
    table = (tmp_path / "out" / "model_agreement.txt").read_text()
    assert table == told[-1] + "\n" and "in 3 of 3 images" in table
    assert sorted(path.name for path in output.parent.iterdir()) == [
        *("model.onnx", "model_agreement.txt")
    ]
    with pytest.raises(OutputExistsError):
        export_model(run, output, told.append, dataset=tiny_export)


def test_detections_are_paired_by_place_and_class_and_the_lowest_may_be_missing():
    class Stand:
        confidence_threshold = 0.5
        cfg = tiny_cfg()

        def __init__(self, boxes, scores, classes=None):
            self.fields = (
                np.float32(boxes),
                np.float32(scores),
                np.array(classes or [0] * len(scores)),
            )

        def predict_frames(self, images):
            boxes, scores, classes = self.fields
            return [ArrayInstances((9, 9), boxes, scores, classes)]

    class Eager(Stand):
        def predict_frames(self, images):
            return [_instances(found) for found in super().predict_frames(images)]

    image, boxes = np.zeros((9, 9, 3), np.uint8), [[0, 0, 4, 4], [5, 5, 9, 9], [1, 1, 8, 8]]

    def row(boxes, scores, classes=None):
        mine = Eager([[0, 0, 4, 4], [5, 5, 9, 9], [1, 1, 8, 8]], [0.9, 0.8, 0.50005])
        return compare(mine, Stand(boxes, scores, classes), "a", image)

    same = row([boxes[1], boxes[0], boxes[2]], [0.9001, 0.8, 0.5])  # in another order
    assert same.score == pytest.approx(0.1, abs=1e-3) and not same.holds and same.unpaired == 0
    assert row(boxes, [0.9, 0.8, 0.50005]).holds
    assert row(boxes[:2], [0.9, 0.8]).holds  # as sure as the threshold
    assert row(boxes[:1], [0.9]).unpaired == 1
    assert row([*boxes, [0, 0, 9, 9]], [0.9, 0.8, 0.50005, 0.6]).unpaired == 1
    assert row(boxes, [0.9, 0.8, 0.50005], [0, 1, 0]).unpaired == 2
    moved = row([[0, 0, 4, 4.02], *boxes[1:]], [0.9, 0.8, 0.50005])
    assert moved.box == pytest.approx(0.02, abs=1e-3) and not moved.holds


# Of one colour: the places are equally good, and rounding decides which of them pass.
FLAT = {"black", "one black pixel", "one grey pixel"}


@pytest.mark.parametrize(
    ("count", "side", "threshold", "may_differ"),
    [
        pytest.param(5, 96, 0.5, set(), marks=pytest.mark.slow),
        pytest.param(50, 320, 0.5, set(), marks=pytest.mark.soak),
        pytest.param(50, 320, 0.05, FLAT, marks=pytest.mark.soak),  # a hundred detections each
    ],
)
def test_images_of_five_sizes_and_odd_ones_on_a_resnet_50_of_random_weights(
    tmp_path, count, side, threshold, may_differ
):
    pytest.importorskip("onnx")
    eager = bm_agreement.random_predictor(tmp_path, side, threshold)
    rows = list(bm_agreement.agreements(eager, count, large=count > 5))
    assert len({(row.height, row.width) for row in rows}) == (6 if count == 5 else 7)
    found = {row.image: row.detections for row in rows}
    assert found["nobody"] == 0 and sum(found.values()) > 2 * count
    assert {row.image for row in rows if not row.holds} <= may_differ
