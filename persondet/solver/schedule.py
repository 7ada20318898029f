"""The schedule of a run: from epochs to steps, from batch size to rate; what makes no sense.

Sources: the linear rule and the warm-up are those of Goyal et al., "Accurate, Large Minibatch
SGD", 2017, sections 2.1 and 2.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from detectron2.config import CfgNode

# A warm-up is a tenth of the run, and never longer than this.
MOST_WARMUP_STEPS = 1_000
# Where a config has no drops of its own: shares of the run after which the rate drops.
DROPS = (2 / 3, 9 / 10)
# An epoch of very few steps is grouped with its neighbours, one of very many is divided, so that
# scores and checkpoints are neither more work than the training nor a day apart.
STEPS_BETWEEN_EVALUATIONS = (20, 10_000)
STEPS_BETWEEN_CHECKPOINTS = (100, 1_000)
FEWEST_ROWS_PER_EPOCH = 5


@dataclass(frozen=True)
class Schedule:
    """What `resolve_schedule` has to say.

    Attributes:
        facts: the schedule in one or two plain lines, and what was scaled.
        warnings: a sentence for each key that made no sense and was changed, or has no effect.
    """

    facts: tuple[str, ...]
    warnings: tuple[str, ...]


def resolve_schedule(cfg: CfgNode, image_count: int) -> Schedule:
    """Set the keys that follow from `SOLVER.EPOCHS` and the batch size, and mend others, in place.

    A config that went through this once comes out of it unchanged.

    Args:
        cfg: not frozen; its datasets are known (`DATASETS.VAL` says whether anything is evaluated).
        image_count: the images of one epoch, over all datasets of `DATASETS.TRAIN`.

    Returns: what a person is told.
    """
    facts = _scale_rate(cfg)
    steps_per_epoch = max(image_count, 1) / cfg.SOLVER.IMS_PER_BATCH
    if cfg.SOLVER.EPOCHS > 0:
        _follow_epochs(cfg, steps_per_epoch)
    warnings = _mend(cfg)
    return Schedule((*_describe(cfg, steps_per_epoch), *facts), tuple(warnings))


def _scale_rate(cfg: CfgNode) -> list[str]:
    """Scale the rate with the batch: `BASE_LR` is meant for `REFERENCE_IMS_PER_BATCH` images."""
    solver = cfg.SOLVER
    reference, batch = solver.REFERENCE_IMS_PER_BATCH, solver.IMS_PER_BATCH
    if reference in (0, batch):
        return []
    before = solver.BASE_LR
    solver.BASE_LR = before * batch / reference
    solver.BASE_LR_END = solver.BASE_LR_END * batch / reference
    # A config that is saved now and used again must not be scaled twice.
    solver.REFERENCE_IMS_PER_BATCH = batch
    return [
        f"Linear rule: SOLVER.BASE_LR {before:g} is meant for batches of {reference}, so "
        f"{solver.BASE_LR:g} for batches of {batch}."
    ]


def _follow_epochs(cfg: CfgNode, steps_per_epoch: float) -> None:
    solver = cfg.SOLVER
    shares = [step / solver.MAX_ITER for step in solver.STEPS]
    if not shares or max(shares) >= 1:
        shares = list(DROPS)
    solver.MAX_ITER = math.ceil(solver.EPOCHS * steps_per_epoch)
    # The other schedules have no drops; what they do not read stays as it is.
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" or solver.STEPS:
        solver.STEPS = _inside([round(share * solver.MAX_ITER) for share in shares], cfg)
    if solver.WARMUP_ITERS:
        solver.WARMUP_ITERS = _sensible_warmup(cfg)
    evaluations = _period(steps_per_epoch, STEPS_BETWEEN_EVALUATIONS)
    fewest, most = STEPS_BETWEEN_CHECKPOINTS
    # Checkpoints and evaluations fall on the same steps.
    parts = math.ceil(evaluations / most)
    if parts > 1:
        solver.CHECKPOINT_PERIOD = math.ceil(evaluations / parts)
        evaluations = solver.CHECKPOINT_PERIOD * parts
    else:
        solver.CHECKPOINT_PERIOD = evaluations * math.ceil(fewest / evaluations)
    if cfg.TEST.EVAL_PERIOD:
        cfg.TEST.EVAL_PERIOD = min(evaluations, solver.MAX_ITER)
    rows = max(1, math.floor(steps_per_epoch / FEWEST_ROWS_PER_EPOCH))
    cfg.LOG_PERIOD = min(cfg.LOG_PERIOD, rows)


def _period(steps_per_epoch: float, bounds: tuple[int, int]) -> int:
    """Return about one epoch in steps: several epochs, or a part of one, where that is too few
    steps or too many. Rounded up, so that no period ends a few steps before the run does.
    """
    fewest, most = bounds
    if steps_per_epoch < fewest:
        return math.ceil(steps_per_epoch * math.ceil(fewest / steps_per_epoch))
    return math.ceil(steps_per_epoch / math.ceil(steps_per_epoch / most))


def _sensible_warmup(cfg: CfgNode) -> int:
    return min(MOST_WARMUP_STEPS, cfg.SOLVER.MAX_ITER // 10)


def _inside(steps: list[int], cfg: CfgNode) -> tuple[int, ...]:
    return tuple(sorted({step for step in steps if 0 < step < cfg.SOLVER.MAX_ITER}))


def _mend(cfg: CfgNode) -> list[str]:
    """Change what makes no sense whatever the data; return a sentence for each change."""
    solver, told = cfg.SOLVER, []
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        steps = _inside(list(solver.STEPS), cfg)
        if steps != tuple(solver.STEPS):
            if not steps:
                steps = _inside([round(share * solver.MAX_ITER) for share in DROPS], cfg)
            told.append(
                f"config: SOLVER.STEPS {tuple(solver.STEPS)} do not lie in order within the "
                f"{solver.MAX_ITER:,} steps of the run; the rate drops at {_listed(steps)}."
            )
            solver.STEPS = steps
    drops = solver.STEPS if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" else ()
    end_of_plateau = min([*drops, solver.MAX_ITER])
    asked = solver.WARMUP_ITERS
    if asked and asked >= end_of_plateau:
        solver.WARMUP_ITERS = min(_sensible_warmup(cfg), end_of_plateau - 1)
        told.append(
            f"config: SOLVER.WARMUP_ITERS is {asked}, and the run of {solver.MAX_ITER:,} steps "
            f"would not reach its rate by then; the warm-up is {solver.WARMUP_ITERS} steps long."
        )
    cfg.TEST.EVAL_PERIOD = min(cfg.TEST.EVAL_PERIOD, solver.MAX_ITER)
    patience, watched = solver.EARLY_STOPPING.PATIENCE, cfg.DATASETS.VAL and cfg.TEST.EVAL_PERIOD
    before = (solver.MAX_ITER - 1) // cfg.TEST.EVAL_PERIOD if watched else 0
    if patience and patience >= before:
        told.append(
            f"config: SOLVER.EARLY_STOPPING.PATIENCE is {patience}, but the run has {before} "
            "evaluations on a validation split before its end, so nothing stops the run early."
        )
    return told


def _describe(cfg: CfgNode, steps_per_epoch: float) -> tuple[str, str]:
    solver, test = cfg.SOLVER, cfg.TEST
    images = round(steps_per_epoch * solver.IMS_PER_BATCH)
    epochs = solver.EPOCHS or solver.MAX_ITER / steps_per_epoch
    evaluated, saved = "evaluation at the end", "checkpoint at the end"
    if not cfg.DATASETS.VAL:
        evaluated = "no evaluation"
    elif test.EVAL_PERIOD not in (0, solver.MAX_ITER):
        evaluated = f"evaluation every {test.EVAL_PERIOD:,} steps"
    if 0 < solver.CHECKPOINT_PERIOD < solver.MAX_ITER:
        saved = f"checkpoint every {solver.CHECKPOINT_PERIOD:,}"
    length = (
        f"{solver.MAX_ITER:,} steps of {solver.IMS_PER_BATCH} = {epochs:.3g} epochs of "
        f"{images:,} images; {evaluated}, {saved}."
    )
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        course = f"a cosine down to {solver.BASE_LR_END:g}"
    elif solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        course = f"times {solver.GAMMA:g} at {_listed(solver.STEPS)}"
    else:
        course = f"times {solver.GAMMA:g}, {solver.NUM_DECAYS} times"
    warmup = f"warm-up over {solver.WARMUP_ITERS} steps" if solver.WARMUP_ITERS else "no warm-up"
    return length, f"{solver.OPTIMIZER}, rate {solver.BASE_LR:g}: {warmup}, then {course}."


def _listed(steps: tuple[int, ...]) -> str:
    if not steps:
        return "no step"
    return f"step{'s' * (len(steps) > 1)} " + " and ".join(f"{step:,}" for step in steps)
