"""A model that knows other classes than the dataset: its `person` becomes ours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from persondet.errors import CheckpointError

logger = logging.getLogger(__name__)

# What datasets of people call them, in lower case.
PERSON_NAMES = frozenset(
    {"person", "persons", "people", "human", "humans", "pedestrian", "pedestrians"}
)


def match_classes(theirs: Sequence[str], ours: Sequence[str]) -> list[int]:
    """Return, for each of the model's classes, the index in `ours`, or -1 for none.

    Names match without regard to case; people match under any of their usual names; and where
    we have one class only, the model's person is that class whatever it is called.
    """
    lowered = [name.casefold() for name in ours]
    people = [index for index, name in enumerate(lowered) if name in PERSON_NAMES]
    if len(ours) == 1:
        people = [0]

    def match(name: str) -> int:
        name = name.casefold()
        if name in lowered:
            return lowered.index(name)
        return people[0] if people and name in PERSON_NAMES else -1

    return [match(name) for name in theirs]


class ClassMappedModel(nn.Module):
    """A detector whose predictions are translated to other classes, or dropped.

    Args:
        model: a Detectron2 model; in eval mode it returns a list of `{"instances": Instances}`.
        mapping: for each of its classes ours, or -1.
    """

    mapping: torch.Tensor

    def __init__(self, model: nn.Module, mapping: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mapping", torch.tensor(mapping, dtype=torch.int64), persistent=False)

    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Predict, keep the detections of our classes, and number them our way."""
        outputs = self.model(batched_inputs)
        translated = []
        for output in outputs:
            instances = output["instances"]
            classes = self.mapping.to(instances.pred_classes.device)[instances.pred_classes]
            kept = instances[classes >= 0]
            kept.pred_classes = classes[classes >= 0]
            translated.append({**output, "instances": kept})
        return translated


def map_classes(model: nn.Module, theirs: Sequence[str], ours: Sequence[str]) -> nn.Module:
    """Wrap `model`, which knows `theirs`, so that it speaks `ours`; itself when they are equal.

    Raises: CheckpointError: when the two have no class in common.
    """
    if tuple(theirs) == tuple(ours):
        return model
    mapping = match_classes(theirs, ours)
    if all(index < 0 for index in mapping):
        raise CheckpointError(
            f"the checkpoint knows {_listed(theirs)}, and the dataset has {_listed(ours)}: no "
            "class in common; train on this dataset first, or name its classes in "
            "DATASETS.ROBOFLOW.CLASSES."
        )
    pairs = [f"{theirs[i]} → {ours[index]}" for i, index in enumerate(mapping) if index >= 0]
    logger.info("Classes of the checkpoint mapped to ours: %s", ", ".join(pairs))
    return ClassMappedModel(model, mapping)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
