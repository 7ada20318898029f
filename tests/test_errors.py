"""The sentence of an error survives the worker process that raised it."""

import traceback
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from persondet.errors import DatasetError


class Broken(Dataset[Any]):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise DatasetError("a.jpg: the image cannot be read (DatasetError: cut).")


def test_an_error_in_a_loader_worker_is_still_one_sentence():
    with pytest.raises(DatasetError) as caught:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert str(caught.value) == "a.jpg: the image cannot be read (DatasetError: cut)."
    traceback.clear_frames(caught.tb)  # the garbage collector would wait for the worker
