"""Several settings, several seeds each: is a difference of two scores more than luck?

Each training is a whole run in `<output>/<variant>/seed_<n>`, as `tools/train_net.py` makes it.
What is finished stays, so a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from persondet.environment import cpu_count, process_pool
from persondet.errors import ConfigError, InterruptedRun, OutputExistsError
from persondet.files import make_folder, write_json
from persondet.results import METRICS, TASKS, read_results

FILE_NAME = "comparison.json"
SCHEMA = 1

_KILLED = (
    "a training was killed, most likely because memory ran out; use fewer --jobs and start again."
)


@dataclass(frozen=True)
class Variant:
    """One setting: a name for its folder and its row, and the overrides that make it."""

    name: str
    opts: tuple[str, ...] = ()


def compare(
    output: str | Path,
    variants: Sequence[Variant],
    *,
    config_file: str | Path,
    seeds: Sequence[int],
    opts: Sequence[str] = (),
    jobs: int = 1,
    overwrite: bool = False,
    announce: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train and score every variant with every seed, and return what `comparison.json` holds.

    Args:
        output: folder of the comparison; runs that are finished there are not trained again.
        variants: their `opts` come after those that all share.
        config_file: YAML config of all runs.
        seeds: values of `SEED`.
        opts: overrides `[KEY, VALUE, …]` that all runs share.
        jobs: runs at a time; they share the cores.
        overwrite: begin anew where `output` holds another comparison.
        announce: gets one line per run.

    Returns: `{"schema", "config_file", "opts", "seeds", "variants": [{"name", "opts", "runs":
    [{"seed", "bbox": {"AP": …}, "segm": …, "seconds"}], "bbox": {"AP": {"mean", "low", "high"}},
    "segm": …}]}`; AP in points, 0 to 100, on the test split.

    Raises: PersondetError: when the request is none, another comparison lies in `output`, or a run
    fails for a reason that can be mended.
    """
    _check(variants, seeds, jobs)
    output = Path(output)
    request = {
        "schema": SCHEMA,
        "config_file": str(config_file),
        "opts": list(opts),
        "variants": [asdict(variant) | {"opts": list(variant.opts)} for variant in variants],
    }
    resume = _goes_on(output, request, overwrite=overwrite)
    make_folder(output)
    write_json(output / "request.json", request)
    # Seeds outside, variants inside: what is there after an interruption can be compared.
    waiting = [(variant, seed) for seed in seeds for variant in variants]
    _train_all(output, waiting, str(config_file), opts, jobs, resume, announce)
    result = request | {
        "seeds": list(seeds),
        "variants": [_summary(output, variant, seeds) for variant in variants],
    }
    write_json(output / FILE_NAME, result)
    return result


def run_folder(output: str | Path, variant: str, seed: int) -> Path:
    """Return the run folder of one variant and seed."""
    return Path(output) / variant / f"seed_{seed}"


def comparison_table(result: Mapping[str, Any]) -> str:
    """Return the scores as a Markdown table: mean over the seeds, and the lowest and highest."""
    tasks = [task for task in TASKS if all(task in row for row in result["variants"])]
    columns = [(task, metric) for task in tasks for metric in METRICS[:2]]
    head = ["variant", *(f"{TASKS[task]} {metric}" for task, metric in columns)]
    rows = [head, ["---"] * len(head)]
    for variant in result["variants"]:
        cells = [_cell(variant[task][metric]) for task, metric in columns]
        rows.append([variant["name"], *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: Mapping[str, float | None]) -> str:
    if value["mean"] is None:
        return "-"
    return f"{value['mean']:.1f} ({value['low']:.1f} to {value['high']:.1f})"


def _check(variants: Sequence[Variant], seeds: Sequence[int], jobs: int) -> None:
    names = [variant.name for variant in variants]
    if not names or len(set(names)) < len(names):
        raise ConfigError("command line: give each --variant a name of its own.")
    for name in names:
        if not name or name.startswith(".") or not set(name).isdisjoint("/\\|\0"):
            raise ConfigError(f"command line: --variant {name!r} is no name for a folder.")
    for variant in variants:
        if len(variant.opts) % 2:
            raise ConfigError(
                f"command line: --variant {variant.name} has {variant.opts[-1]!r} without a value; "
                "write NAME KEY VALUE …"
            )
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError("command line: --seeds must be different numbers from 0 on.")
    if jobs < 1:
        raise ConfigError(f"command line: --jobs is {jobs}; it must be at least 1.")


def _goes_on(output: Path, request: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Return whether `output` holds this comparison; refuse another one."""
    try:
        earlier = json.loads((output / "request.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = None
    if earlier == request:
        return not overwrite
    if output.exists() and any(output.iterdir()) and not overwrite:
        raise OutputExistsError(
            f"{output} holds something else than this comparison; choose another --output, or add "
            "--overwrite to replace the runs in it."
        )
    return False


def _train_all(
    output: Path,
    waiting: Sequence[tuple[Variant, int]],
    config_file: str,
    opts: Sequence[str],
    jobs: int,
    resume: bool,
    announce: Callable[[str], None],
) -> None:
    threads = max(1, cpu_count() // jobs)
    left = []
    for variant, seed in waiting:
        folder = run_folder(output, variant.name, seed)
        if resume and (folder / "results.json").is_file():
            announce(f"{variant.name}, seed {seed}: done before")
            continue
        arguments = SimpleNamespace(
            config_file=config_file,
            opts=[*opts, *variant.opts, "SEED", str(seed), "OUTPUT_DIR", str(folder)],
            resume=resume and (folder / "last_checkpoint").is_file(),
            eval_only=False,
            overwrite=True,
            quiet=True,
        )
        left.append((f"{variant.name}, seed {seed}", arguments, folder))
    running: dict[Future[float], str] = {}
    try:
        with process_pool(jobs, _KILLED) as pool:
            while left or running:
                # No more than can run: leaving the pool waits for all that it was given.
                while left and len(running) < jobs:
                    name, arguments, folder = left.pop(0)
                    running[pool.submit(_train, arguments, threads, folder)] = name
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    name = running.pop(future)
                    announce(f"{name}: {future.result():.0f} s")
    except KeyboardInterrupt:
        raise InterruptedRun("interrupted; the same command goes on with what is left") from None


def _train(arguments: Any, threads: int, folder: Path) -> float:
    """Train and score one run with its output in `<folder>.log`; return the seconds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.log", "a", encoding="utf-8") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    import torch

    from persondet.engine.run import run

    torch.set_num_threads(threads)
    results = run(arguments)
    return sum(results.get("seconds", {}).values())


def _summary(output: Path, variant: Variant, seeds: Sequence[int]) -> dict[str, Any]:
    runs = []
    for seed in seeds:
        results = read_results(run_folder(output, variant.name, seed))
        tasks = {task: results["test"][task] for task in TASKS if results["test"].get(task)}
        runs.append({"seed": seed, **tasks, "seconds": results.get("seconds", {})})
    return {
        "name": variant.name,
        "opts": list(variant.opts),
        "runs": runs,
        **{
            task: {metric: _spread([run[task].get(metric) for run in runs]) for metric in METRICS}
            for task in TASKS
            if all(task in run for run in runs)
        },
    }


def _spread(values: Sequence[float | None]) -> dict[str, float | None]:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return {"mean": None, "low": None, "high": None}
    return {"mean": statistics.fmean(numbers), "low": min(numbers), "high": max(numbers)}
