"""The wiring: what the config says reaches the parts that train, and nobody disturbs another."""

import json
import random

import numpy as np
import pytest
import torch

from persondet.engine import trainer as trainer_file
from persondet.engine.trainer import Trainer
from tests.engine.toy_training import ToyTrainer, rows, toy_cfg


def test_precision_optimizer_rate_and_best_model_are_those_of_the_config(tiny_export, tmp_path):
    scores = iter((30.0, 10.0, 20.0))

    class Scored(ToyTrainer):
        def _evaluate_validation(self):
            return {"segm": {"AP": next(scores)}, "bbox": {"AP": 1.0}}

    keys = {
        "SOLVER.AMP.ENABLED": True,
        "SOLVER.AMP.DTYPE": "bfloat16",
        "SOLVER.OPTIMIZER": "AdamW",
        "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.WARMUP_ITERS": 2,
        "SOLVER.STEPS": (4,),
        "SOLVER.MAX_ITER": 6,
        "SOLVER.BEST_CHECKPOINT.MODE": "min",
        "SOLVER.EARLY_STOPPING.PATIENCE": 0,
        "TEST.EVAL_PERIOD": 2,
        "LOG_PERIOD": 1,
    }
    overrides = (word for pair in keys.items() for word in pair)
    trainer = Scored(toy_cfg(tiny_export, tmp_path / "run", *overrides))
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
    assert json.loads((tmp_path / "run" / "model_best.json").read_text()) == {
        "metric": "segm/AP",
        "score": 10.0,
        "iteration": 3,
    }


def test_trap_2_training_is_the_same_whatever_the_scoring_draws(tiny_export, tmp_path, monkeypatch):
    class Evaluated(ToyTrainer):
        _evaluate_validation = Trainer._evaluate_validation

    ends = []
    for draws in (0, 3):

        def evaluate(cfg, model, *_, count=draws, **__):
            torch.rand(count)
            np.random.rand(count)
            [random.random() for _ in range(count)]
            model.eval()
            return {"segm": {"AP": 1.0}, "bbox": {"AP": 1.0}}

        monkeypatch.setattr(trainer_file, "evaluate", evaluate)
        output = tmp_path / f"run_{draws}"
        trainer = Evaluated(
            toy_cfg(tiny_export, output, "SOLVER.MAX_ITER", 4, "TEST.EVAL_PERIOD", 1)
        )
        trainer.train()
        assert trainer.model.training
        ends.append(trainer.model.linear.weight.detach().clone())
    assert torch.equal(*ends)
