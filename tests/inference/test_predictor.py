"""The predictor, on a tiny model with random weights."""

import pickle
import shutil

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.layers import paste_masks_in_image
from detectron2.modeling import build_model

from persondet.checkpoint.model_file import store_score_threshold
from persondet.errors import CheckpointError, ConfigError
from persondet.inference.masks import paste_regions
from persondet.inference.predictor import Predictor, load_predictor, run_cfg
from persondet.modeling.precision import autocast
from tests.inference.tiny_model import save_run, tiny_cfg


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.manual_seed(0)
    cfg = tiny_cfg()
    return save_run(tmp_path_factory.mktemp("run"), build_model(cfg), cfg, "worker")


@pytest.fixture(scope="module")
def predictor(run):
    return Predictor.from_run(run, confidence_threshold=0.01)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)


def test_a_run_becomes_the_instances_that_detectron2_finds_in_the_image(run, predictor, image):
    people = predictor(image)
    assert people.pred_masks.shape == (len(people), 96, 128)
    boxes = people.pred_boxes.tensor
    assert boxes.dtype == people.scores.dtype == torch.float32
    assert people.scores.tolist() == sorted(people.scores.tolist(), reverse=True)
    assert predictor.metadata.thing_classes == ["worker"]
    # Records name the run folder and the file, not the place on the disk.
    assert predictor.model_file == f"{run.name}/model_best.pth"
    assert not any(t.requires_grad for t in (people.scores, boxes, people.pred_masks))
    with pytest.raises(ValueError, match="uint8"):
        predictor(np.zeros((4, 4, 3), np.float32))
    stock = build_model(predictor.cfg).eval()
    DetectionCheckpointer(stock).load(str(run / "model_best.pth"))
    with torch.no_grad():
        (expected,) = stock([predictor._model_input(image)])
    expected = expected["instances"][expected["instances"].scores >= 0.01]
    assert len(people) > 0
    assert torch.allclose(boxes, expected.pred_boxes.tensor, atol=1e-3)
    assert (people.pred_masks == expected.pred_masks).float().mean() > 0.9999


def test_no_mask_is_made_of_what_the_threshold_drops(run, predictor, image, tmp_path):
    everything = predictor(image)
    middle = float(everything.scores.median())
    shutil.copy(run / "model_best.pth", tmp_path)
    store_score_threshold(tmp_path / "model_best.pth", middle)
    predictor, masked = Predictor.from_run(tmp_path), []
    assert predictor.confidence_threshold == pytest.approx(middle)
    head = predictor.model.roi_heads.mask_head
    head.register_forward_pre_hook(lambda _, given: masked.append(len(given[0])))
    found, kept = predictor(image), everything[everything.scores >= middle]
    assert masked == [len(kept)] != [len(everything)]
    assert torch.equal(found.scores, kept.scores)
    assert torch.equal(found.pred_boxes.tensor, kept.pred_boxes.tensor)
    assert torch.equal(found.pred_masks, kept.pred_masks)


def test_a_batch_gives_each_image_its_own_answer_and_frames_small_masks(predictor, image):
    images = [image, np.ascontiguousarray(image[:, ::-1])]
    whole, frames = predictor.predict_batch(images), predictor.predict_frames(images)
    for batched, small in zip(whole, frames, strict=True):
        assert len(small) > 0
        assert (small.has("pred_masks"), batched.has("roi_masks")) == (False, False)
        assert small.roi_masks.tensor.dtype == torch.float32
        assert torch.equal(small.pred_boxes.tensor, batched.pred_boxes.tensor)
        masks = paste_regions(small).region_masks
        assert all(np.array_equal(masks.whole(i), batched.pred_masks[i]) for i in range(len(masks)))
    for alone, batched in zip(map(predictor, images), whole, strict=True):
        assert len(alone) == len(batched)
        assert torch.allclose(alone.pred_boxes.tensor, batched.pred_boxes.tensor, atol=1e-2)


def test_masks_of_a_model_in_bfloat16_are_resampled_in_float32(run, image):
    cfg = run_cfg(run)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE = "cpu", True, "bfloat16"
    predictor = Predictor(cfg, confidence_threshold=0.01)
    with torch.inference_mode(), autocast(predictor.cfg):
        (raw,) = predictor.model([predictor._model_input(image)])
    assert raw["instances"].roi_masks.tensor.dtype == torch.bfloat16
    (found,) = predictor.predict_frames([image])
    assert found.roi_masks.tensor.dtype == torch.float32
    expected = paste_masks_in_image(found.roi_masks.tensor, found.pred_boxes, (96, 128))
    assert torch.equal(predictor(image).pred_masks, expected)


@pytest.mark.parametrize(("order", "seen"), [("BGR", [10, 20, 30]), ("RGB", [30, 20, 10])])
def test_a_model_without_masks_sees_the_channels_in_its_own_order(tmp_path, order, seen):
    cfg = tiny_cfg()
    cfg.INPUT.FORMAT, cfg.MODEL.MASK_ON = order, False
    save_run(tmp_path, build_model(cfg), cfg)
    predictor, inputs = Predictor.from_run(tmp_path), []
    assert predictor.confidence_threshold == 0.5
    predictor.model.register_forward_pre_hook(lambda _, given: inputs.append(given[0][0]["image"]))
    blue_green_red = np.array([10, 20, 30], np.uint8)
    (found,) = predictor.predict_frames([np.broadcast_to(blue_green_red, (96, 128, 3)).copy()])
    assert inputs[0].float().mean(dim=(1, 2)).tolist() == seen
    assert not any(found.has(name) for name in ("roi_masks", "pred_masks", "region_masks"))


def test_the_order_of_thresholds_is_flag_key_checkpoint(run, tmp_path):
    cfg = tiny_cfg()
    shutil.copy(run / "model_best.pth", tmp_path)
    cfg.MODEL.WEIGHTS = str(tmp_path / "model_best.pth")
    store_score_threshold(tmp_path / "model_best.pth", 0.37)
    assert load_predictor(tmp_path).confidence_threshold == 0.37
    cfg.VISUALIZATION.SCORE_THRESH = 0.3
    assert Predictor(cfg).confidence_threshold == 0.3
    with pytest.raises(ConfigError, match="from 0 to 1"):
        Predictor(cfg, confidence_threshold=1.5)


def test_a_model_zoo_file_of_80_classes_finds_people_before_any_training(tmp_path, image):
    torch.manual_seed(0)
    model = build_model(tiny_cfg(classes=80))
    # Person stands first among COCO's classes: make it and the second class equally likely.
    model.roi_heads.box_predictor.cls_score.weight.data.zero_()
    model.roi_heads.box_predictor.cls_score.bias.data[:2] = 8.0
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo"}))
    cfg = tiny_cfg()
    cfg.MODEL.WEIGHTS = str(path)
    predictor = Predictor(cfg, confidence_threshold=0.1)
    people = predictor(image)
    assert predictor.metadata.thing_classes == ["person"]
    assert len(people) > 0
    assert set(people.pred_classes.tolist()) == {0}
    # the same file with two of the 80 classes: the same people among its detections
    cfg.DATASETS.ROBOFLOW.CLASSES = ("person", "bicycle")
    both = Predictor(cfg, confidence_threshold=0.1)(image)
    assert torch.equal(both.scores[both.pred_classes == 0], people.scores)
    assert (both.pred_classes == 1).any()


def test_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        Predictor.from_run(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no model_best.pth"):
        Predictor.from_run(tmp_path)
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "model_best.pth")
    with pytest.raises(CheckpointError, match="carries no config"):
        Predictor.from_run(tmp_path)
    with pytest.raises(CheckpointError, match="MODEL.WEIGHTS is empty"):
        Predictor(tiny_cfg())


def test_trap_15_the_config_that_a_checkpoint_carries_runs_nothing(tmp_path):
    config = f"OUTPUT_DIR: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n"
    torch.save({"model": {"w": torch.ones(1)}, "persondet": {"config": config}}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="no config of this version") as caught:
        run_cfg(tmp_path / "m.pth")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
