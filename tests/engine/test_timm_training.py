"""Backbones of timm of five kinds in the real trainer: frozen, resumed to the bit, used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from persondet.engine.trainer import Trainer
from persondet.inference.predictor import Predictor
from persondet.modeling.freeze import frozen_tensors
from tests.engine.toy_training import toy_cfg

pytestmark = pytest.mark.slow


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
def test_ten_steps_freeze_what_they_say_resume_to_the_bit_and_make_a_predictor(
    name: str, norm: str, freeze_at: int, tiny_export: Path, tmp_path: Path, small_swin: None
) -> None:
    def trained(*, resume: bool) -> Trainer:
        keys = {
            "MODEL.BACKBONE.NAME": "build_timm_fpn_backbone",
            "MODEL.BACKBONE.FREEZE_AT": freeze_at,
            "MODEL.TIMM.NAME": name,
            "MODEL.TIMM.NORM": norm,
            "INPUT.MIN_SIZE_TRAIN": (64,),
            "SOLVER.BASE_LR": 0.001,
            "SOLVER.MAX_ITER": 10,
            "SOLVER.STEPS": (),
            "SOLVER.CHECKPOINT_PERIOD": 6,
            "TEST.EVAL_PERIOD": 0,
            "TEST.VAL_LOSS.ENABLED": False,
        }
        words = [word for pair in keys.items() for word in pair]
        cfg = toy_cfg(tiny_export, tmp_path / "run", *words, resume=resume)
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=resume)
        before.append({n: t.clone() for n, t in trainer.model.state_dict().items()})
        trainer.train()
        return trainer

    before: list[dict[str, torch.Tensor]] = []
    first = trained(resume=False).model
    after = {n: t.clone() for n, t in first.state_dict().items()}
    frozen = set(frozen_tensors(first))
    parts = {n.split(".")[2] for n in frozen if "bottom_up" in n and "norm" not in n}
    stages = {"stem", "res2", "res3", "res4", "res5"}
    if norm == "BN":
        assert parts == set(sorted(stages, key=("stem", *sorted(stages)).index)[:freeze_at])
    for tensor, value in before[0].items():
        if tensor in frozen:
            assert torch.equal(after[tensor], value), tensor
    moved = [n for n, p in first.named_parameters() if not torch.equal(after[n], before[0][n])]
    assert set(moved) == {n for n, p in first.named_parameters() if p.requires_grad}

    (tmp_path / "run/model_final.pth").unlink()
    (tmp_path / "run/last_checkpoint").write_text("model_0000005.pth")
    resumed = trained(resume=True)
    assert resumed.start_iter == 6
    again = resumed.model.state_dict()
    for tensor, value in after.items():
        assert torch.equal(again[tensor], value), tensor

    image = np.random.default_rng(0).integers(0, 255, (75, 61, 3), dtype=np.uint8)
    people = Predictor.from_run(tmp_path / "run", confidence_threshold=0.0)(image)
    assert people.image_size == (75, 61)
    assert people.pred_masks.shape == (len(people), 75, 61)
