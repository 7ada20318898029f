"""The model of the tools that use one, as a stand-in."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances


class OnePerson:
    """Detects one person in every image, at (8, 20) to (40, 56)."""

    metadata = Metadata(name="stub", thing_classes=["person"])
    confidence_threshold, model_file, batch_size = 0.3, "some/model.pth", 2
    cfg = SimpleNamespace(VIDEO=SimpleNamespace(STRIDE=2))

    def predict_batch(self, images):
        fields = {"pred_boxes": Boxes([[8.0, 20, 40, 56]]), "scores": torch.tensor([0.9])}
        fields["pred_classes"] = torch.tensor([0])
        return [Instances(image.shape[:2], **fields) for image in images]


@pytest.fixture
def loaded(monkeypatch):
    """Replaces the loading of a model; the list gets the run of each one that is asked for."""
    runs = []

    def load(run, *_, **__):
        runs.append(run)
        return OnePerson()

    monkeypatch.setattr("persondet.inference.predictor.load_predictor", load)
    return runs
