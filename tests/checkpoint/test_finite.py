"""A checkpoint with NaN or infinity is never written."""

import pytest
import torch
from torch import nn

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.checkpoint.checkpointer import non_finite_tensors
from persondet.checkpoint.model_file import load_checkpoint
from persondet.errors import TrainingError


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_not_saved_and_the_good_file_stays(tmp_path, value):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    checkpointer = SafeDetectionCheckpointer(model, str(tmp_path))
    checkpointer.save("model_0000009", iteration=9)
    good = model[1].bias.detach().clone()
    model[1].bias.data[1] = value
    for save in (
        lambda: checkpointer.save("model_0000019", iteration=19),
        lambda: checkpointer.save("model_0000009", iteration=19),
        lambda: checkpointer.save_model("model_best", iteration=19),
    ):
        with pytest.raises(
            TrainingError, match=r"1\.bias holds NaN or infinity.*BASE_LR"
        ) as caught:
            save()
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "last_checkpoint",
        "model_0000009.pth",
    ]
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"
    assert torch.equal(load_checkpoint(tmp_path / "model_0000009.pth")["model"]["1.bias"], good)


def test_whole_numbers_and_nested_containers_are_looked_at():
    state = {"a": [torch.tensor([1, 2]), {"b": (torch.tensor([torch.nan]),)}], "c": "text"}
    assert list(non_finite_tensors(state)) == ["a.1.b.0"]
