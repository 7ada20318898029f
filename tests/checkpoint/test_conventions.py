"""torchvision's ResNets in Detectron2's clothes, and what weights expect of the config."""

from pathlib import Path

import pytest
import torch
import torchvision
from detectron2.modeling import build_backbone
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.conventions import expected_keys
from persondet.checkpoint.model_file import check_weights
from persondet.config import get_cfg, merge_yaml
from persondet.errors import CheckpointError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
TORCHVISION = CONFIGS / "person_mask_rcnn_R_50_FPN_torchvision.yaml"


def cfg_of(name="person_mask_rcnn_R_50_FPN.yaml", **keys):
    cfg = get_cfg()
    merge_yaml(cfg, CONFIGS / name)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.update(keys)
    return cfg


def resnet(depth):
    """A ResNet whose batch norm is not the identity; of depth 50 a thin one."""
    torch.manual_seed(depth)
    blocks = (BasicBlock, [2, 2, 2, 2]) if depth == 18 else (Bottleneck, [3, 4, 6, 3])
    model = ResNet(*blocks, width_per_group=64 if depth == 18 else 8)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2.0)
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_(0.5)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "norm"), [(18, "FrozenBN"), (50, "BN")])
def test_converted_weights_give_torchvisions_own_features(tmp_path, depth, norm):
    theirs = resnet(depth)
    torch.save(theirs.state_dict(), tmp_path / "resnet.pth")
    keys = {"RES2_OUT_CHANNELS": 64} if depth == 18 else {"WIDTH_PER_GROUP": 8}
    cfg = cfg_of(TORCHVISION, DEPTH=depth, NORM=norm, **keys)
    check_weights(str(tmp_path / "resnet.pth"), cfg)
    with pytest.raises(CheckpointError, match=f'MODEL.RESNETS.DEPTH "{depth}"'):
        check_weights(str(tmp_path / "resnet.pth"), cfg_of(TORCHVISION, DEPTH=101, **keys))
    ours = nn.ModuleDict({"backbone": build_backbone(cfg)}).eval()
    SafeDetectionCheckpointer(ours).load(str(tmp_path / "resnet.pth"))
    image = torch.randint(0, 256, (1, 3, 64, 96)).float()  # RGB, 0..255
    ours_like = torchvision.transforms.Normalize(cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    normalize = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        features = ours["backbone"].bottom_up(ours_like(image))
        x = normalize(image / 255)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for stage in (1, 2, 3, 4):
            x = theirs.get_submodule(f"layer{stage}")(x)
            difference = (features[f"res{stage + 1}"] - x).abs().max() / x.abs().max()
            assert difference < 1e-4, stage


def test_torchvisions_conventions_are_demanded_in_one_sentence(tmp_path):
    path = tmp_path / "resnet50-0676ba61.pth"  # torchvision's names and shapes, no numbers
    with torch.device("meta"):
        state = torchvision.models.resnet50(weights=None).state_dict()
    torch.save({name: torch.zeros(()).expand(value.shape) for name, value in state.items()}, path)
    with pytest.raises(CheckpointError, match="INPUT.FORMAT is BGR") as caught:
        check_weights(str(path), cfg_of())
    keys = ("INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1")
    for key, value in zip(keys, ("RGB", "[123.675", "[58.395", "False"), strict=True):
        assert f'{key} "{value}' in str(caught.value)
    check_weights(str(path), cfg_of(TORCHVISION))


def test_a_zoo_model_is_known_by_its_file_name():
    zoo = {"model": {"backbone.x": torch.zeros(1)}, "__author__": "Detectron2 Model Zoo"}
    _, keys = expected_keys(zoo, "/cache/model_final_2d9806.pkl")
    assert keys["MODEL.PIXEL_STD"] == [57.375, 57.12, 58.395]
    _, keys = expected_keys(zoo, "COCO-InstanceSegmentation/x/137849600/model_final_f10217.pkl")
    assert keys["MODEL.PIXEL_STD"] == [1.0, 1.0, 1.0]
    assert expected_keys(zoo, "mine.pkl")[1] == {}
