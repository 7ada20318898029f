"""Weights of timm models: the wheel's, the hub's, a file's; and what they expect of the config."""

from pathlib import Path

import pytest
import timm
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from safetensors.torch import save_file
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer, conventions
from persondet.checkpoint.conventions import check_conventions, source_of, timm_file
from persondet.checkpoint.model_file import check_weights
from persondet.engine import load_cfg
from persondet.errors import CheckpointError
from persondet.modeling.backbones import LEVELS
from persondet.modeling.freeze import frozen_at_random

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
LITE0 = CONFIGS / "person_mask_rcnn_EfficientNet_Lite0_FPN.yaml"
WHEEL = "timm://tf_efficientnet_lite0"


def cfg_of(name: str) -> CfgNode:
    """Return the config of Lite0 for another model, with its mean and deviation."""
    known = timm.get_pretrained_cfg(name)
    mean, deviation = ([255 * value for value in values] for values in (known.mean, known.std))
    keys = ["MODEL.TIMM.NAME", name, "MODEL.PIXEL_MEAN", mean, "MODEL.PIXEL_STD", deviation]
    return load_cfg(LITE0, [str(word) for word in ("MODEL.DEVICE", "cpu", *keys)])


def loaded(cfg: CfgNode, weights: str | Path) -> SafeDetectionCheckpointer:
    check_weights(str(weights), cfg)
    checkpointer = SafeDetectionCheckpointer(nn.ModuleDict({"backbone": build_backbone(cfg)}))
    checkpointer.load(str(weights), checkpointables=[])
    return checkpointer


def test_frozen_stages_compute_what_timm_computes_with_the_weights_of_the_wheel() -> None:
    opts = ["MODEL.DEVICE", "cpu", "MODEL.FPN.IN_FEATURES", str(tuple(LEVELS.values()))]
    checkpointer = loaded(load_cfg(LITE0, opts), WHEEL)
    report, model = checkpointer.key_report, checkpointer.model
    assert not [name for name in report.not_loaded if "bottom_up" in name]
    assert {name.split(".")[0] for name in report.unused} == {"conv_head", "bn2", "classifier"}
    assert frozen_at_random(model, report.fitting) == ""
    # The file as it is, in the order of its tensors, under timm's own names.
    tensors = torch.load(timm_file(WHEEL), weights_only=True).values()
    with torch.device("meta"):
        names = timm.create_model("tf_efficientnet_lite0").state_dict()
    features = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    features.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        own = dict(zip(features.feature_info.reduction(), features(x), strict=True))
    # Frozen stages compute the same in a training; there the others use the batch's statistics.
    for training, strides in ((False, LEVELS), (True, (4, 8))):
        with torch.no_grad():
            maps = model.backbone.bottom_up.train(training)(x)
        for stride in strides:
            torch.testing.assert_close(maps[LEVELS[stride]], own[stride], atol=1e-5, rtol=1e-5)


def test_the_wheel_is_known_by_its_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert source_of(WHEEL)["sha256"].startswith("57934424")  # as the file's name says
    monkeypatch.setattr(conventions, "_WHEEL_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match="install it again"):
        timm_file(WHEEL)


# timm's names of a ResNet are torchvision's, which Detectron2's ResNet gets translated.
@pytest.mark.parametrize(
    ("name", "suffix"), [("test_resnet", ".pth"), ("test_convnext", ".safetensors")]
)
def test_trap_names_of_a_whole_model_fit_one_of_feature_maps(name, suffix, tmp_path) -> None:
    state, path = timm.create_model(name).state_dict(), tmp_path / f"weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)(state, path)
    model = loaded(cfg_of(name), path).model
    for tensor, value in model.backbone.bottom_up.state_dict().items():
        own = tensor.partition(".")[2]
        assert torch.equal(value, state[own if own in state else own.replace("_", ".", 1)]), tensor


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not hold the weights of timm's test_convnext"):
        check_weights(str(tmp_path / "w.pth"), cfg_of("test_convnext"))
    with pytest.raises(CheckpointError, match="MODEL.TIMM.NAME tf_efficientnet_lite0"):
        check_weights(WHEEL, load_cfg(CONFIGS / "person_mask_rcnn_R_50_FPN.yaml"))


def test_trap_a_config_that_feeds_other_colours_than_timm_did_is_refused() -> None:
    weights = {"__author__": "timm", "model": {}}
    for key, value in (
        ("INPUT.FORMAT", "BGR"),
        ("MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]"),
        ("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"),
    ):
        with pytest.raises(CheckpointError, match=f"add to the command: {key}"):
            check_conventions(weights, load_cfg(LITE0, [key, value]), WHEEL)


def test_a_file_of_the_hub_is_told_with_its_revision(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    revision = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    for name in (f"snapshots/{revision}", "refs"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text(revision)
    save_file({"w": torch.ones(1)}, folder / "snapshots" / revision / "model.safetensors")
    source = source_of("timm://test_resnet.r160_in1k")
    assert (source["hf_hub_id"], source["revision"]) == ("timm/test_resnet.r160_in1k", revision)
    with pytest.raises(CheckpointError, match=r"model.safetensors of timm/resnet18.*\.pth\.$"):
        timm_file("timm://resnet18.a1_in1k")
    with pytest.raises(CheckpointError, match="it has resnet18.a1_in1k"):
        timm_file("timm://resnet18.nope")
