"""One process or several: starts the ranks of a run, or joins those that torchrun has started."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine.launch import DEFAULT_TIMEOUT

from persondet.engine.defaults import check_export, load_cfg
from persondet.engine.rank_failure import Failure, report
from persondet.engine.rank_log import write_rank_log
from persondet.engine.ranks import GRACE, Group, join_group, leave_group, run_ranks
from persondet.environment import cpu_count
from persondet.errors import ConfigError, InterruptedRun
from persondet.modeling.precision import resolve_device

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)

# What torchrun tells each process that it starts.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def launch_run(function: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call `function(args)` in every rank that the command line, or torchrun, asks for.

    What all ranks would refuse is refused here, once, before any of them is started.

    Args:
        function: such as `persondet.engine.run.run`; named in a module, where a new process finds
            it.
        args: with `num_gpus`, `num_machines`, `machine_rank`, `dist_url`, `config_file`, `opts`
            and `eval_only`.

    Raises: PersondetError: in one sentence. Otherwise as `launch`.
    """
    device = "auto"
    if started_by_torchrun() or (args.num_gpus, args.num_machines) != (1, 1):
        with _one_rank_speaks():
            cfg = load_cfg(args.config_file, args.opts)
            check_export(cfg)
            check_processes(cfg, args)
            device = cfg.MODEL.DEVICE
    launch(
        function,
        (args,),
        processes=args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        device=device,
    )


def launch(
    function: Callable[..., Any],
    args: Sequence[Any] = (),
    *,
    processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: str = "auto",
) -> None:
    """Call `function(*args)` in each of `processes * num_machines` ranks, and wait for them.

    As `detectron2.engine.launch`, with three differences. On the CPU the ranks talk over Gloo and
    share the cores. A process that torchrun has started is a rank already: it joins the others and
    starts none. And a rank that dies, killed or by its own error, ends the others, and its error
    is raised here. One rank alone is this process.

    Args:
        processes: ranks on this machine: with GPUs, one for each.
        num_machines: machines with as many ranks; the same command runs on each of them.
        machine_rank: which of the machines this is.
        dist_url: where the ranks meet, `tcp://host:port`; `auto` on a single machine.
        device: `cpu`, `cuda`, or `auto`: GPUs where torch finds any.

    Raises: what `function` raised where it is a `PersondetError` or an interruption; RankLostError:
    when a rank was killed; RuntimeError: with rank and traceback, for any other error of a rank.
    """
    if started_by_torchrun():
        with _one_rank_speaks():
            _be_torchruns_rank(function, args, resolve_device(device))
    elif (processes, num_machines) == (1, 1):
        function(*args)
    else:
        group = Group(processes, num_machines, machine_rank, dist_url, resolve_device(device))
        run_ranks(function, args, group)


def started_by_torchrun() -> bool:
    """Return whether torchrun, or anything that keeps to its variables, started this process."""
    return all(os.environ.get(name) for name in _TORCHRUN)


def check_processes(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse numbers of processes and machines that cannot work together.

    Raises: ConfigError: naming the flag or the key.
    """
    if started_by_torchrun():
        world_size, here = int(os.environ["WORLD_SIZE"]), _local_world_size()
        if (args.num_gpus, args.num_machines) != (1, 1):
            raise ConfigError(
                "command line: torchrun has started the processes already; leave --num-gpus and "
                "--num-machines out."
            )
    else:
        world_size, here = args.num_gpus * args.num_machines, args.num_gpus
        _check_machines(args)
    if resolve_device(cfg.MODEL.DEVICE).startswith("cuda"):
        if here > 1 and cfg.MODEL.DEVICE not in ("auto", "cuda"):
            raise ConfigError(
                f"config: MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, and {here} processes need a GPU "
                "each; use 'cuda'."
            )
        if here > torch.cuda.device_count():
            raise ConfigError(
                f"command line: --num-gpus is {here}, and torch finds {torch.cuda.device_count()} "
                "on this machine; set it to that, or MODEL.DEVICE to cpu."
            )
    elif here > cpu_count():
        logger.warning("%d processes share %d cores.", here, cpu_count())
    if not args.eval_only and cfg.SOLVER.IMS_PER_BATCH % world_size:
        raise ConfigError(
            f"config: SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}, which {world_size} "
            f"processes cannot share; use a multiple of {world_size}."
        )


def _check_machines(args: argparse.Namespace) -> None:
    for flag, count in (("--num-gpus", args.num_gpus), ("--num-machines", args.num_machines)):
        if count < 1:
            raise ConfigError(f"command line: {flag} is {count}; use 1 or more.")
    if not 0 <= args.machine_rank < args.num_machines:
        raise ConfigError(
            f"command line: --machine-rank is {args.machine_rank}; with --num-machines "
            f"{args.num_machines} it goes from 0 to {args.num_machines - 1}."
        )
    if args.dist_url == "auto" and args.num_machines > 1:
        raise ConfigError(
            "command line: several machines need --dist-url, the first machine's address and a "
            "free port, such as tcp://10.0.0.1:29500."
        )


def _be_torchruns_rank(function: Callable[..., Any], args: Sequence[Any], device: str) -> None:
    here = _local_world_size()
    store, rank, world_size = next(dist.rendezvous("env://", timeout=DEFAULT_TIMEOUT))
    group = Group(here, max(1, world_size // here), rank // here, "env://", device)
    meeting = dist.PrefixStore("group", store)
    join_group(group, rank, int(os.environ["LOCAL_RANK"]), store=meeting)
    function(*args)
    leave_group()


def _local_world_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ["WORLD_SIZE"])


@contextlib.contextmanager
def _one_rank_speaks() -> Iterator[None]:
    """Let one of torchrun's ranks alone say what went wrong: its end ends the others."""
    try:
        yield
    except Exception as error:
        if started_by_torchrun() and not _is_first(Failure.of(int(os.environ["RANK"]), error)):
            # torchrun ends this process, within a second, when the one that failed first has gone.
            time.sleep(2 * GRACE)
        raise


def _is_first(failure: Failure) -> bool:
    interrupted = failure.exit_code == InterruptedRun.exit_code
    if failure.rank and not interrupted and not failure.is_consequence:
        write_rank_log(failure.trace)
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=DEFAULT_TIMEOUT))
        return report(dist.PrefixStore("persondet", store), failure)
    except (RuntimeError, ValueError):
        return True  # where the ranks met is gone
