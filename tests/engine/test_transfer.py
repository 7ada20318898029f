"""A run that starts from weights and freezes a part: what it keeps, and what it says of it."""

import json
import logging

import pytest
import torch
import torchvision
from torch import nn

from persondet.checkpoint.model_file import load_checkpoint
from persondet.engine import trainer as trainer_file
from persondet.engine.trainer import Trainer
from persondet.errors import CheckpointError
from tests.engine.toy_training import ToyTrainer, toy_cfg


class Detector(nn.Module):
    """A backbone with batch norm, and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.linear = nn.Linear(4, 2)

    def forward(self, batch):
        pixels = torch.stack([item["image"][:, :16, :16].float() / 255 for item in batch])
        return {"loss": self.linear(self.backbone(pixels).mean((2, 3))).square().sum()}


class Wrapped(nn.Module):
    """As `DistributedDataParallel` wraps a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, batch):
        losses = self.module(batch)
        return losses


class Transfer(ToyTrainer):
    """With the true `build_model`."""

    @classmethod
    def build_model(cls, cfg):
        return Trainer.build_model(cfg)

    def _evaluate_validation(self):
        return {"segm": {"AP": 1.0}, "bbox": {"AP": 1.0}}


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_what_is_frozen_ends_as_it_was_loaded_and_the_tables_tell(
    tiny_export, tmp_path, monkeypatch, caplog, optimizer
):
    monkeypatch.setattr(trainer_file, "build_model", lambda cfg: Detector())
    monkeypatch.setattr(trainer_file, "data_parallel", Wrapped)  # as one of several ranks
    trained = {
        name: torch.rand_like(tensor) + 0.5
        for name, tensor in Detector().state_dict().items()
        if name.startswith("backbone.") and tensor.is_floating_point()
    }
    torch.save({"model": trained | {"fc.weight": torch.ones(1)}}, tmp_path / "weights.pth")
    cfg = toy_cfg(
        tiny_export,
        tmp_path / "run",
        *("MODEL.WEIGHTS", tmp_path / "weights.pth", "MODEL.FREEZE.MODULES", "('back*',)"),
        *("SOLVER.OPTIMIZER", optimizer, "SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.MAX_ITER", 8),
    )
    logging.getLogger("persondet").addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "persondet"):
        trainer = Transfer(cfg)
        trainer.resume_or_load(resume=False)
    logging.getLogger("persondet").removeHandler(caplog.handler)
    trainer.train()

    end = load_checkpoint(tmp_path / "run/model_final.pth")["model"]
    assert [n for n, tensor in trained.items() if not torch.equal(end[n], tensor)] == []
    assert not torch.equal(end["linear.weight"], Detector().linear.weight)

    said = "\n".join(record.getMessage() for record in caplog.records)
    rows = [line.split() for line in said.splitlines()]
    assert ["backbone.0", "0", "16", "frozen"] in rows
    assert ["backbone.0", "2", "0"] in rows
    assert ["linear", "0", "2", "not", "in", "the", "checkpoint"] in rows
    assert "fc - 1 in the checkpoint, and the model has no such tensor".split() in rows
    assert "Frozen and never trained" not in said  # the checkpoint gave all that is frozen
    table = [line.split() for line in (tmp_path / "run/parameters.txt").read_text().splitlines()]
    assert ["backbone.1", "0", "8", "frozen"] in table
    assert ["backbone.1.running_mean", "4", "frozen"] in table
    parts = json.loads((tmp_path / "run/parameters.json").read_text())["parts"]
    assert {
        "module": "backbone.1",
        "trainable": 0,
        "frozen": 8,
        "state": "frozen",
        "rate": "",
    } in parts
    assert [part["module"] for part in parts].index("all") == len(
        parts
    ) - 1  # as the report expects


def test_weights_of_other_conventions_are_refused_before_anything_is_written(tiny_export, tmp_path):
    with torch.device("meta"):
        state = torchvision.models.resnet18(weights=None).state_dict()
    empty = {name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}
    torch.save(empty, tmp_path / "resnet18.pth")
    keys = ("MODEL.WEIGHTS", tmp_path / "resnet18.pth")
    with pytest.raises(CheckpointError, match='add to the command: INPUT.FORMAT "RGB"') as caught:
        toy_cfg(tiny_export, tmp_path / "run", *keys)
    assert not (tmp_path / "run").exists()
    added = str(caught.value).partition("add to the command: ")[2].rstrip(".")
    words = [word for part in added.split('"') if (word := part.strip())]
    toy_cfg(tiny_export, tmp_path / "run", *keys, *words)
