"""The wiring: what the config says reaches the parts that train, and nobody disturbs another."""

import copy
import json
import logging
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from persondet.checkpoint.model_file import load_checkpoint
from persondet.engine import trainer as trainer_file
from persondet.engine.trainer import Trainer
from persondet.errors import TrainingError
from persondet.inference.predictor import Predictor
from persondet.modeling.freeze import frozen_tensors
from tests.engine.toy_training import ToyTrainer, rows, same, toy_cfg, toy_run


def test_precision_optimizer_rate_and_best_model_are_those_of_the_config(
    tiny_export, tmp_path, monkeypatch
):
    scores = iter((30.0, 10.0, 20.0))
    found = lambda self: {"segm": {"AP": next(scores)}}  # noqa: E731
    monkeypatch.setattr(ToyTrainer, "_evaluate_validation", found)
    keys = """AMP.ENABLED True AMP.DTYPE bfloat16 OPTIMIZER AdamW BASE_LR 0.02 WARMUP_ITERS 2
        LR_SCHEDULER_NAME WarmupMultiStepLR STEPS (4,) MAX_ITER 6 EARLY_STOPPING.PATIENCE 0
        BEST_CHECKPOINT.MODE min""".split()
    keys[::2] = [f"SOLVER.{key}" for key in keys[::2]]
    keys += ["TEST.EVAL_PERIOD", 2, "LOG_PERIOD", 1]
    trainer = ToyTrainer(toy_cfg(tiny_export, tmp_path / "run", *keys))
    seen = set()
    trainer.model.linear.register_forward_hook(lambda *call: seen.add(call[-1].dtype))
    trainer.train()
    assert seen == {torch.bfloat16}
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    written = rows(tmp_path / "run")
    rates = {row["iteration"]: row["lr"] for row in written if "lr" in row}
    assert rates[0] < 0.02
    assert [rates[step] for step in (2, 3, 4, 5)] == pytest.approx([0.02, 0.02, 0.002, 0.002])
    scored = {row["iteration"]: row["segm/AP"] for row in written if "segm/AP" in row}
    assert scored == {1: 30.0, 3: 10.0, 6: 20.0}
    best = json.loads((tmp_path / "run" / "model_best.json").read_text())
    assert best == {"metric": "segm/AP", "score": 10.0, "iteration": 3}


def test_a_training_in_which_no_object_reached_the_model_fails(tiny_export, tmp_path):
    trainer = toy_run(tiny_export, tmp_path, "INPUT.ALBUMENTATIONS.MIN_BOX_SIZE", "5e3")
    with pytest.raises(TrainingError, match="no object reached the model"):
        trainer.train()


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.linear = nn.Linear(4, 2)

    def forward(self, batch):
        pixels = torch.stack([item["image"][:, :16, :16].float() / 255 for item in batch])
        return {"loss": self.linear(self.backbone(pixels).mean((2, 3))).square().sum()}


class Transfer(ToyTrainer):
    build_model = Trainer.build_model

    def _evaluate_validation(self):
        return {"segm": {"AP": 1.0}}


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_what_is_frozen_ends_as_it_was_loaded_and_the_tables_tell(
    tiny_export, tmp_path, monkeypatch, caplog, optimizer
):
    monkeypatch.setattr(trainer_file, "build_model", lambda cfg: Detector())
    wrapped = lambda model: nn.Sequential(OrderedDict(module=model))  # noqa: E731
    monkeypatch.setattr(trainer_file, "data_parallel", wrapped)  # as one of several ranks
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
        *("SOLVER.OPTIMIZER", optimizer, "SOLVER.WEIGHT_DECAY", 0.5, "SOLVER.MAX_ITER", 4),
        *("SOLVER.STEPS", ()),
    )
    logging.getLogger("persondet").addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "persondet"):
        trainer = Transfer(cfg)
        trainer.resume_or_load(resume=False)
    trainer.train()

    end = load_checkpoint(tmp_path / "run/model_final.pth")["model"]
    assert [n for n, tensor in trained.items() if not torch.equal(end[n], tensor)] == []
    assert not torch.equal(end["linear.weight"], Detector().linear.weight)

    said = "\n".join(record.getMessage() for record in caplog.records)
    lines = [line.split() for line in said.splitlines()]
    assert ["linear", "0", "2", "not", "in", "the", "checkpoint"] in lines
    assert "Frozen and never trained" not in said  # the checkpoint gave all that is frozen
    table = [line.split() for line in (tmp_path / "run/parameters.txt").read_text().splitlines()]
    assert ["backbone.1.running_mean", "4", "frozen"] in table
    parts = json.loads((tmp_path / "run/parameters.json").read_text())["parts"]
    frozen = {part["module"]: (part["trainable"], part["frozen"]) for part in parts}
    assert frozen["backbone.1"] == (0, 8) and parts[-1]["module"] == "all"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "norm", "freeze_at"),
    [
        ("test_resnet", "BN", 2),
        ("tf_efficientnet_lite0", "FrozenBN", 3),
        ("mobilenetv3_small_050", "BN", 0),
        ("test_convnext", "FrozenBN", 5),
        ("swin_tiny_patch4_window7_224", "FrozenBN", 4),
    ],
)
def test_a_backbone_of_timm_freezes_what_it_says_resumes_to_the_bit_and_makes_a_predictor(
    name, norm, freeze_at, tiny_export, tmp_path, small_swin
):
    before = []

    def trained(*, resume):
        words = f"""MODEL.BACKBONE.NAME build_timm_fpn_backbone MODEL.BACKBONE.FREEZE_AT {freeze_at}
            MODEL.TIMM.NAME {name} MODEL.TIMM.NORM {norm} INPUT.MIN_SIZE_TRAIN (64,)
            SOLVER.BASE_LR 0.001 SOLVER.MAX_ITER 10 SOLVER.STEPS () SOLVER.CHECKPOINT_PERIOD 6
            TEST.EVAL_PERIOD 0 TEST.VAL_LOSS.ENABLED False""".split()
        trainer = Trainer(toy_cfg(tiny_export, tmp_path / "run", *words, resume=resume))
        trainer.resume_or_load(resume=resume)
        before.append(copy.deepcopy(trainer.model.state_dict()))
        trainer.train()
        return trainer

    first = trained(resume=False).model
    after = first.state_dict()
    frozen = set(frozen_tensors(first))
    parts = {n.split(".")[2] for n in frozen if "bottom_up" in n and "norm" not in n}
    if norm == "BN":
        assert parts == set(["stem", "res2", "res3", "res4", "res5"][:freeze_at])
    assert all(torch.equal(after[name], before[0][name]) for name in frozen)
    moved = {n for n, p in first.named_parameters() if not torch.equal(after[n], before[0][n])}
    assert moved == {n for n, p in first.named_parameters() if p.requires_grad}

    (tmp_path / "run/model_final.pth").unlink()
    (tmp_path / "run/last_checkpoint").write_text("model_0000005.pth")
    resumed = trained(resume=True)
    assert resumed.start_iter == 6
    assert same(dict(resumed.model.state_dict()), dict(after))

    image = np.random.default_rng(0).integers(0, 255, (75, 61, 3), dtype=np.uint8)
    people = Predictor.from_run(tmp_path / "run", confidence_threshold=0.0)(image)
    assert people.image_size == (75, 61)
    assert people.pred_masks.shape == (len(people), 75, 61)
