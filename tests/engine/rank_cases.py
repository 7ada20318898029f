"""What the tests of several processes run in each rank; a new process imports it by name."""

import os
import signal
import time
from pathlib import Path

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from persondet.engine import Trainer, setup
from persondet.results import RunError


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
        if how == "bad input":
            raise RunError("a.json: is no run; remove it.")
        if how == "bug":
            raise ZeroDivisionError("one by nought")
        time.sleep(2)
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "killed":  # the other rank is the cause, although this one ends first
        raise RuntimeError("Connection closed by peer")
    time.sleep(600)  # this rank does not even listen
