"""Out of memory is one sentence with the keys that help, and only out of memory is."""

import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from persondet.config import get_cfg
from persondet.engine.train_step import is_memory_shortage, memory_in_one_sentence
from persondet.errors import DatasetError, TrainingError
from tests.engine.toy_training import ToyModel, toy_run


def cfg(**keys):
    node = get_cfg()
    node.MODEL.DEVICE = "cpu"
    node.SOLVER.IMS_PER_BATCH = 3
    node.DATALOADER.NUM_WORKERS = 5
    node.SOLVER.AMP.DTYPE = "float32"
    for key, value in keys.items():
        node.merge_from_list([key, value])
    return node


def said(error, *, training=True, **keys):
    assert is_memory_shortage(error)
    with (
        pytest.raises(TrainingError) as caught,
        memory_in_one_sentence(cfg(**keys), training=training),
    ):
        raise error
    assert "\n" not in str(caught.value) and caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_full_gpu_names_the_keys_with_their_values(error):
    sentence = said(error, **{"SOLVER.AMP.DTYPE": "float32"})
    for words in (
        "SOLVER.IMS_PER_BATCH (3 now)",
        "INPUT.MIN_SIZE_TRAIN ((800,) now)",
        "INPUT.MAX_SIZE_TRAIN (1333 now)",
        "SOLVER.AMP.DTYPE bfloat16",
    ):
        assert words in sentence
    assert "NUM_WORKERS" not in sentence
    assert "SOLVER.AMP" not in said(error, **{"SOLVER.AMP.DTYPE": "bfloat16"})
    assert "SOLVER.AMP.ENABLED True" in said(error, **{"SOLVER.AMP.ENABLED": False})


def test_memory_that_torch_cannot_get_on_the_cpu_is_told():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**62, dtype=torch.uint8)
    sentence = said(caught.value)
    assert "the machine's memory ran out" in sentence
    assert "SOLVER.IMS_PER_BATCH (3 now)" in sentence and "NUM_WORKERS (5 now)" in sentence
    assert "machine's memory" in said(MemoryError("Unable to allocate 4 GiB"))


class Killed(Dataset[int]):
    """A worker that gets what the kernel sends when memory is short."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_killed_worker_points_at_memory():
    with pytest.raises(RuntimeError) as caught:
        list(DataLoader(Killed(), num_workers=1))
    assert "lower DATALOADER.NUM_WORKERS (5 now)" in said(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shape mismatch"),
        ValueError("out of memory"),
        DatasetError("a.jpg: out of memory"),
        KeyError("x"),
    ],
)
def test_any_other_error_leaves_as_it_came(error):
    assert not is_memory_shortage(error)
    with pytest.raises(type(error)) as caught, memory_in_one_sentence(cfg(), training=True):
        raise error
    assert caught.value is error


def test_a_step_that_runs_out_of_memory_ends_the_training_with_the_sentence(
    tiny_export, tmp_path, monkeypatch
):
    """Also: Detectron2's loop logs no traceback of it."""

    def full(self, batch):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(ToyModel, "forward", full)
    trainer = toy_run(tiny_export, tmp_path / "run")
    with pytest.raises(TrainingError, match=r"out of memory; lower SOLVER.IMS_PER_BATCH \(2 now\)"):
        trainer.train()
    assert "Traceback" not in (tmp_path / "run/log.txt").read_text()
