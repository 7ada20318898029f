"""The real trainer, loader, hooks and files around a model of a few numbers."""

import json
import random
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from detectron2.utils.events import get_event_storage
from torch import nn

from persondet.engine.defaults import setup
from persondet.engine.trainer import Trainer
from persondet.engine.validation import ValidationImagesHook

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/quick_schedules/person_mask_rcnn_R_18_FPN_instant_test.yaml"
# What a clock decides.
TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


class ToyModel(nn.Module):
    """Its loss depends on the images, and on a draw of every random state that there is."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, batch):
        means = torch.stack([image["image"].float().mean(dim=(1, 2)) / 255 for image in batch])
        noise = torch.rand(2) + random.random() + np.random.rand()
        get_event_storage().put_scalar("toy/mean", float(means.mean()))
        return {
            "loss_a": (self.linear(means) - noise).pow(2).mean(),
            "loss_b": self.linear(means).abs().sum() * 0.01,
        }


class ToyTrainer(Trainer):
    """Trains a `ToyModel`; its score on the validation split follows from the weights."""

    @classmethod
    def build_model(cls, cfg):
        return ToyModel()

    def build_hooks(self):
        """Without validation images, whose drawing takes longer than all the rest."""
        return [
            hook for hook in super().build_hooks() if not isinstance(hook, ValidationImagesHook)
        ]

    def _validation_loss_hook(self):
        return None

    def _evaluate_validation(self):
        return {"segm": {"AP": 50 + float(self.model.linear.weight.sum())}, "bbox": {"AP": 1.0}}


def toy_cfg(export, output, *overrides, resume=False):
    """Return the config of a toy run: 24 steps, a checkpoint every 4th, an evaluation every 6th."""
    keys = """MODEL.DEVICE cpu INPUT.MIN_SIZE_TRAIN (24,) INPUT.ALBUMENTATIONS.PIPELINE light
        SOLVER.MAX_ITER 24 SOLVER.STEPS (16,) SOLVER.BASE_LR 0.05 SOLVER.CHECKPOINT_PERIOD 4
        SOLVER.EARLY_STOPPING.PATIENCE 4 SOLVER.EARLY_STOPPING.MIN_DELTA 0.5
        TEST.EVAL_PERIOD 6 LOG_PERIOD 5""".split()
    paths = ("DATASETS.ROBOFLOW.ROOT", export, "OUTPUT_DIR", output)
    opts = [str(word) for word in (*keys, *paths, *overrides)]
    return setup(Namespace(config_file=str(CONFIG), opts=opts, resume=resume, overwrite=False))


def toy_run(export, output, *overrides, resume=False):
    trainer = ToyTrainer(toy_cfg(export, output, *overrides, resume=resume))
    trainer.resume_or_load(resume=resume)
    return trainer


def rows(folder):
    """Return the rows of `metrics.json`, without times."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def same(first, second):
    """Return whether nested containers of tensors and numbers are equal to the bit, times aside."""
    if torch.is_tensor(first):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first if key not in TIMES
        )
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second or (first != first and second != second))  # NaN is the same NaN
