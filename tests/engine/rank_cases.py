"""What the tests of several processes run in each rank; a new process imports it by name."""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from persondet.checkpoint import SafeDetectionCheckpointer
from persondet.engine import Trainer, setup
from persondet.engine.train_step import AutocastTrainer


class SeedByRank(HookBase):
    """Seeds the samplers of a step by its number and the rank."""

    def before_step(self):
        torch.manual_seed(1000 * self.trainer.iter + comm.get_rank())


def train(args):
    """Train under Detectron2's own launch; rank 0 saves the weights before and after the run."""
    torch.set_num_threads(1)
    cfg = setup(args)
    trainer = Trainer(cfg)
    trainer.register_hooks([SeedByRank()])
    model = trainer._trainer.model
    start = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    trainer.train()
    if comm.is_main_process():
        torch.save(start, Path(cfg.OUTPUT_DIR) / "start.pt")
        torch.save(model.module.state_dict(), Path(cfg.OUTPUT_DIR) / "end.pt")
    # That launch ends each process with its group still up: the threads of one rank may then talk
    # to a rank that has gone, and abort.
    comm.synchronize()
    dist.destroy_process_group()


def end_badly(how, folder):
    """Let rank 1 die in one of several ways, while rank 0 waits for it."""
    Path(folder, f"pid_{comm.get_rank()}").write_text(str(os.getpid()))
    comm.synchronize()
    if comm.get_rank() == 1:
        if how == "bug":
            raise ZeroDivisionError("one by nought")
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "killed":  # the other rank is the cause, although this one ends first
        raise RuntimeError("Connection closed by peer")
    time.sleep(600)  # this rank does not even listen


class OneLoss(nn.Module):
    """Its loss is a weight times what the image is."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return {"loss_cls": (self.weight * batch[0]["image"]).mean()}


def diverge(folder):
    """Train on a rank's own images, of which the third is NaN on rank 1; save after each step."""
    rank = comm.get_rank()
    model = OneLoss()
    images = [torch.full((3,), torch.nan if rank and number == 2 else 1.0) for number in range(9)]
    batches = [[{"image": image, "file_name": f"rank{rank}.jpg"}] for image in images]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = AutocastTrainer(DistributedDataParallel(model), batches, optimizer)
    checkpointer = SafeDetectionCheckpointer(model, folder)
    with EventStorage():
        for trainer.iter in range(9):
            trainer.run_step()
            if rank == 0:
                checkpointer.save(f"model_{trainer.iter}", iteration=trainer.iter)
