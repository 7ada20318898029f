"""A whole run: train, choose the best model, score it on the test split, keep the numbers."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm

from persondet.data.register import class_names, ground_truth, image_count
from persondet.engine.defaults import config_text, setup
from persondet.engine.event_files import METRICS, last_row
from persondet.engine.inference_model import build_inference_model
from persondet.engine.interruption import saying_how_to_resume
from persondet.engine.memory_shortage import memory_in_one_sentence
from persondet.engine.provenance import provenance
from persondet.engine.run_folder import (
    best_is_chosen,
    find_model,
    refuse_lost_checkpoints,
    remove_run,
    reserved,
)
from persondet.engine.trainer import Trainer
from persondet.errors import ConfigError
from persondet.evaluation.constant_box import constant_box_scores
from persondet.files import write_json, write_text
from persondet.results import format_results_table, write_results

if TYPE_CHECKING:
    import argparse

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train and score, or with `args.eval_only` score alone; every rank of a run calls this.

    Args:
        args: `config_file`, `opts`, `resume`, `eval_only`, `overwrite`.

    Returns: what `results.json` holds; empty on all ranks but the first.

    Raises: InterruptedRun: on Ctrl-C or SIGTERM during the training, with the command that resumes
    it, if `args.command` has the words of the command line. PersondetError: for bad input.
    """
    cfg = setup(args)
    if args.eval_only:
        with memory_in_one_sentence(cfg, training=False):
            return _evaluate_only(cfg, resume=args.resume)
    with (
        reserved(cfg.OUTPUT_DIR),
        memory_in_one_sentence(cfg, training=True),
        saying_how_to_resume(getattr(args, "command", ())),
    ):
        return _train(cfg, args)


def _train(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    start, resume = time.perf_counter(), args.resume
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    new = trainer.checkpointer.resumed_from is None
    if new and resume:
        refuse_lost_checkpoints(cfg.OUTPUT_DIR)
    if comm.is_main_process():
        if new:
            # Only now is the run known to start; refuse_used_folder has seen to the permission.
            remove_run(Path(cfg.OUTPUT_DIR))
        write_text(Path(cfg.OUTPUT_DIR) / "config.yaml", config_text(cfg))
    comm.synchronize()
    if _is_trained(trainer):
        logger.info("%s: the training is finished; nothing is trained again.", cfg.OUTPUT_DIR)
        earlier = _earlier_results(cfg, trainer)
        if earlier is not None:
            _show(earlier)
            return earlier if comm.is_main_process() else {}
    else:
        with provenance(cfg, args.config_file, args.opts, lambda: trainer.steps_done):
            trainer.train()
    trained = time.perf_counter()
    if comm.is_main_process() and not best_is_chosen(cfg.OUTPUT_DIR):
        logger.warning("No score on a validation split: the best model is the last.")
        trainer.checkpointer.save_model("model_best", iteration=trainer.max_iter - 1)
        write_json(
            Path(cfg.OUTPUT_DIR) / "model_best.json",
            {"metric": None, "score": None, "iteration": trainer.max_iter - 1},
        )
    comm.synchronize()
    if not cfg.DATASETS.TEST:
        logger.warning("No test split: the run ends without a final score.")
        return {}
    best = find_model(cfg.OUTPUT_DIR)
    logger.info("Scoring %s on the test split", best.name)
    trainer.checkpointer.load(str(best), checkpointables=[])
    scores = Trainer.test(cfg, trainer.model)
    if not comm.is_main_process():
        return {}
    record = json.loads((Path(cfg.OUTPUT_DIR) / "model_best.json").read_text(encoding="utf-8"))
    results = {
        "model": best.name,
        "iteration": record["iteration"],
        "steps": trainer.max_iter,
        "chosen_by": {"metric": record["metric"], "score": record["score"]},
        "classes": list(class_names(cfg.DATASETS.TEST[0])),
        "test": _first_dataset(cfg, scores),
        "constant_box": _constant_box(cfg),
        "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        "initial_weights": cfg.MODEL.WEIGHTS,
        "seconds": {"train": trained - start, "test": time.perf_counter() - trained},
    }
    write_results(cfg.OUTPUT_DIR, results)
    _show(results)
    return results


def _show(results: dict[str, Any]) -> None:
    logger.info("Test split:\n%s", format_results_table(results), extra={"result": True})


def _is_trained(trainer: Trainer) -> bool:
    """Return whether every step is done, and the evaluation after the last of them too."""
    evaluated = last_row(Path(trainer.cfg.OUTPUT_DIR) / METRICS) >= trainer.max_iter
    return trainer.start_iter >= trainer.max_iter and (evaluated or not trainer.cfg.DATASETS.VAL)


def _earlier_results(cfg: CfgNode, trainer: Trainer) -> dict[str, Any] | None:
    """Return what a finished run has scored already, None where its scores are not there."""
    path = Path(cfg.OUTPUT_DIR) / "results.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known = earlier.get("steps") == trainer.max_iter and cfg.DATASETS.TEST
    return earlier if known and earlier["test"]["dataset"] == cfg.DATASETS.TEST[0] else None


def _evaluate_only(cfg: CfgNode, *, resume: bool) -> dict[str, Any]:
    if not cfg.DATASETS.TEST:
        raise ConfigError(
            "config: DATASETS.TEST is empty and the export has no test split; name a registered "
            "dataset, such as DATASETS.TEST \"('person_valid',)\"."
        )
    if resume:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS = str(find_model(cfg.OUTPUT_DIR))
        cfg.freeze()
    built = build_inference_model(cfg, class_names(cfg.DATASETS.TEST[0]))
    scores = Trainer.test(cfg, built.model)
    if not comm.is_main_process():
        return {}
    results = {
        "model": cfg.MODEL.WEIGHTS,
        "iteration": built.facts.iteration,
        "classes": list(built.class_names),
        "test": _first_dataset(cfg, scores),
    }
    # Beside the predictions that it sums up; the run's own results.json stays as it is.
    write_results(Path(cfg.OUTPUT_DIR) / "inference" / cfg.DATASETS.TEST[0], results)
    logger.info("Scores:\n%s", format_results_table(results), extra={"result": True})
    return results


def _constant_box(cfg: CfgNode) -> dict[str, dict[str, float]]:
    """Return what the training split's median box scores on the first test set."""
    json_file, category_ids = ground_truth(cfg.DATASETS.TEST[0])
    training = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
    return constant_box_scores(training, json_file, category_ids, masks=cfg.MODEL.MASK_ON)


def _first_dataset(cfg: CfgNode, scores: dict[str, Any]) -> dict[str, Any]:
    name = cfg.DATASETS.TEST[0]
    # With several test sets Detectron2 nests the scores by name; the first one is the headline.
    tasks = scores.get(name, scores)
    return {"dataset": name, "images": image_count(name), **tasks}
