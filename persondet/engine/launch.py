"""One process or several: starts the ranks of a run, or joins those that torchrun has started."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine.launch import DEFAULT_TIMEOUT
from detectron2.utils import comm
from torch.distributed.elastic import multiprocessing as elastic

from persondet.engine.defaults import check_export, load_cfg
from persondet.environment import cpu_count, quiet_upstream
from persondet.errors import ConfigError, InterruptedRun, PersondetError, RankLostError
from persondet.modeling.precision import resolve_device

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)

# The variables that torchrun sets in each process that it starts.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# What a rank says when another one has gone: a consequence, never the cause.
_LOST_PEER = re.compile("gloo|NCCL|Connection (closed|reset) by peer|Broken pipe")
_HOST = "127.0.0.1"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Seconds in which the rank that failed first ends the others.
_GRACE = 5
_DAY = 24 * 60 * 60


def launch_run(function: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call `function(args)` in every rank that the command line, or torchrun, asks for.

    Input that all ranks would refuse is refused here, once, before any of them starts.

    Args:
        function: such as `persondet.engine.run.run`; named in a module, where a new process finds
            it.
        args: with `num_gpus`, `num_machines`, `machine_rank`, `dist_url`, `config_file`, `opts`
            and `eval_only`.

    Raises: PersondetError: in one sentence. Otherwise as `launch`.
    """
    device = "auto"
    if started_by_torchrun() or (args.num_gpus, args.num_machines) != (1, 1):
        with _lowest_rank_first():
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

    torchrun's own machinery starts the processes, watches over them and carries their errors.
    Below its `elastic_launch`, because new processes must not hear Ctrl-C while they import, and
    because `machine_rank` is given, not agreed on.

    Args:
        processes: ranks on this machine: with GPUs, one for each.
        num_machines: machines with as many ranks; the same command runs on each of them.
        machine_rank: the number of this machine, from 0.
        dist_url: where the ranks meet, `tcp://host:port`; `auto` on a single machine.
        device: `cpu`, `cuda`, or `auto`: GPUs where torch finds any.

    Raises: what `function` raised where it is a `PersondetError` or an interruption; RankLostError:
    when a rank was killed; RuntimeError: with rank and traceback, for any other error of a rank.
    """
    if started_by_torchrun():
        with _lowest_rank_first():
            _be_rank(function, args, resolve_device(device), "env://")
        return
    if (processes, num_machines) == (1, 1):
        function(*args)
        return
    common = {"WORLD_SIZE": str(processes * num_machines), "LOCAL_WORLD_SIZE": str(processes)}
    if dist_url == "auto":
        # The ranks meet at this store: no other process can take its port in between.
        store = dist.TCPStore(_HOST, 0, is_master=True, wait_for_workers=False)
        common |= {"MASTER_ADDR": _HOST, "MASTER_PORT": str(store.port)}
        common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        dist_url = "env://"
    first = machine_rank * processes
    environments = {
        local_rank: common | {"RANK": str(first + local_rank), "LOCAL_RANK": str(local_rank)}
        for local_rank in range(processes)
    }
    _run_ranks((function, tuple(args), resolve_device(device), dist_url), environments)


def started_by_torchrun() -> bool:
    """Return whether torchrun, or anything that sets its variables, started this process."""
    return all(os.environ.get(name) for name in _TORCHRUN)


def is_lost_peer(error: BaseException | None) -> bool:
    """Return whether `error` only says that another rank has gone, which tells its own error."""
    return isinstance(error, RuntimeError) and bool(_LOST_PEER.search(str(error)))


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


def _local_world_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ["WORLD_SIZE"])


def _be_rank(function: Callable[..., Any], args: Sequence[Any], device: str, url: str) -> None:
    """Be the rank that the environment names, whoever started this process."""
    try:
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cpu_count() // _local_world_size()))
        _join_group(device, url)
        function(*args)
        # No rank leaves before all have come so far.
        comm.synchronize()
        dist.destroy_process_group()
    except Exception as error:
        if is_lost_peer(error):
            time.sleep(_GRACE)  # the rank that has gone is noticed first
            if started_by_torchrun():  # it was on another host
                raise RankLostError(
                    "another process of this run has gone, or its host; go on from the last "
                    "checkpoint with the same commands and --resume."
                ) from error
        raise


def _join_group(device: str, url: str) -> None:
    """Set the group up as Detectron2's `launch` does: NCCL between GPUs, Gloo between CPUs."""
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(local_rank)
        backend = "nccl"
    world_size = int(os.environ["WORLD_SIZE"])
    try:
        dist.init_process_group(
            backend, init_method=url, rank=rank, world_size=world_size, timeout=DEFAULT_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        if url == "env://":
            raise
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"command line: the ranks cannot meet at --dist-url {url} ({reason}); use "
            "tcp://HOST:PORT with the first machine's address and a free port."
        ) from error
    comm.create_local_process_group(_local_world_size())
    comm.synchronize()


@contextlib.contextmanager
def _lowest_rank_first() -> Iterator[None]:
    """Let the ranks of torchrun fail one after the other: it ends the rest after the first."""
    try:
        yield
    except Exception:
        if started_by_torchrun() and (local_rank := int(os.environ["LOCAL_RANK"])):
            time.sleep(_GRACE + local_rank)
        raise


def _run_ranks(work: tuple[Any, ...], environments: dict[int, dict[str, str]]) -> None:
    """Call `_be_rank(*work)` in a new process for each environment, and wait for all of them.

    When one dies the others are ended. Ctrl-C and SIGTERM are passed on to every rank, once each
    time, and the ranks get the time that they need to save.
    """
    for name in ("torch.multiprocessing.spawn", "torch.distributed.elastic.multiprocessing.api"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the error is told once, below
    interrupted = False
    with tempfile.TemporaryDirectory() as folder, _start_without_signals():
        works, reports = dict.fromkeys(environments, work), elastic.DefaultLogsSpecs(folder)
        context = elastic.start_processes("rank", _new_rank, works, environments, reports)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            result = context.wait()
            failures = list(result.failures.values()) if result else []
        except elastic.SignalException:
            interrupted = True
            _interrupt(context)
            failures = [
                elastic.ProcessFailure(local_rank, 0, 1, path)
                for local_rank, path in context.error_files.items()
                if Path(path).is_file()
            ]
    errors = [_error(one, environments[one.local_rank]["RANK"]) for one in failures]
    causes = [one for one in errors if not is_lost_peer(one)]
    if causes or errors or interrupted:
        raise (*causes, *errors, KeyboardInterrupt())[0]


def _new_rank(*work: Any) -> None:
    # A terminal sends Ctrl-C to its whole process group: from there each rank would get it twice.
    os.setpgid(0, 0)
    quiet_upstream()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        _be_rank(*work)
    except KeyboardInterrupt:
        raise InterruptedRun("interrupted") from None


def _interrupt(context: elastic.PContext) -> None:
    """Pass a signal on and wait; a second one stops the ranks at once, further ones end them."""
    further = itertools.chain((signal.SIGINT, signal.SIGTERM), itertools.repeat(signal.SIGKILL))

    def pass_on(number: int, frame: FrameType | None) -> None:
        number = next(further)
        for pid in context.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    context.close(signal.SIGINT, _DAY)


def _error(failure: elastic.ProcessFailure, rank: str) -> BaseException:
    """Return what the command ends with: an error that a person can mend, or rank and traceback."""
    if failure.exitcode < 0:
        return RankLostError(
            f"rank {rank} was ended by {failure.signal_name()}, as the system does when memory "
            "runs out, and the other ranks with it; go on from the last checkpoint with --resume, "
            "with fewer processes or a smaller SOLVER.IMS_PER_BATCH if it was memory."
        )
    if isinstance(failure.message, str):
        return RuntimeError(f"rank {rank} ended with exit code {failure.exitcode} and no error")
    name, _, sentence = failure.message["message"].partition(": ")
    for kind in _kinds(PersondetError):
        if kind.__name__ == name:
            return kind(sentence)
    trace = failure.message["extraInfo"]["py_callstack"]
    return RuntimeError(f"rank {rank} failed with this error:\n\n{trace}")


def _kinds(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(one for below in kind.__subclasses__() for one in _kinds(below))]


@contextlib.contextmanager
def _start_without_signals() -> Iterator[None]:
    """Hold signals back until the ranks are there, and give their handlers back at the end.

    New processes inherit that, and a warning filter, before they import torch: Ctrl-C would give a
    traceback for each of them.
    """
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # Not SIGHUP, which `nohup` ignores.
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ",".join(number.name for number in _SIGNALS)
    # What `quiet_upstream` says of Detectron2's import; a filter that a user has set stays.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:`torch.jit.script:FutureWarning")
    resource_tracker.ensure_running()  # its start would let the signals through again
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
