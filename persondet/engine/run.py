"""A whole run: train, choose the best model, score it on the test split, keep the numbers."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm

from persondet.data.register import class_names, ground_truth
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
from persondet.engine.scoring import explain, headline, operating_point, tuned_threshold
from persondet.engine.trainer import Trainer
from persondet.engine.training_records import write_training_records
from persondet.errors import ConfigError
from persondet.evaluation import evaluate
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
        if not _is_trained(trainer):
            write_training_records(cfg, trainer.checkpointer.key_report, new=new)
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
    if not cfg.DATASETS.VAL and not cfg.DATASETS.TEST:
        logger.warning("No validation and no test split: the run ends without a final score.")
        return {}
    best = find_model(cfg.OUTPUT_DIR)
    trainer.checkpointer.load(str(best), checkpointables=[])
    scores = _scores_of_best(cfg, trainer, best)
    if not comm.is_main_process():
        return {}
    valid, test = _first(cfg.DATASETS.VAL), _first(cfg.DATASETS.TEST)
    threshold = tuned_threshold(cfg, valid, best) if valid else None
    points = explain(cfg, list(scores), threshold)
    record = json.loads((Path(cfg.OUTPUT_DIR) / "model_best.json").read_text(encoding="utf-8"))
    results = {
        "model": best.name,
        "iteration": record["iteration"],
        "steps": trainer.max_iter,
        "chosen_by": {"metric": record["metric"], "score": record["score"]},
        "classes": list(class_names(cfg.DATASETS.TRAIN[0])),
        **{
            split: headline(cfg, name, scores[name])
            for split, name in (("test", test), ("valid", valid))
            if name
        },
        "operating_point": operating_point(points, threshold, valid=valid, test=test),
        **({"constant_box": _constant_box(cfg)} if test else {}),
        "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        "initial_weights": cfg.MODEL.WEIGHTS,
        "seconds": {"train": trained - start, "test": time.perf_counter() - trained},
    }
    write_results(cfg.OUTPUT_DIR, results)
    _show(results)
    return results


def _scores_of_best(cfg: CfgNode, trainer: Trainer, best: Path) -> dict[str, dict[str, Any]]:
    """Return the scores of the best model by dataset: the first validation set, every test set."""
    names = [*cfg.DATASETS.VAL[:1], *cfg.DATASETS.TEST]
    logger.info("Scoring %s on %s", best.name, ", ".join(dict.fromkeys(names)))
    return {
        name: evaluate(cfg, trainer.model, [name], Trainer.build_test_loader)
        for name in dict.fromkeys(names)
    }


def _first(datasets: Sequence[str]) -> str | None:
    return datasets[0] if datasets else None


def _show(results: dict[str, Any]) -> None:
    split = "test" if results.get("test") else "valid"
    title = "Test split" if split == "test" else "No test split; validation split"
    logger.info("%s:\n%s", title, format_results_table(results, split), extra={"result": True})


def _is_trained(trainer: Trainer) -> bool:
    """Return whether every step is done, and the evaluation after the last of them too."""
    evaluated = last_row(Path(trainer.cfg.OUTPUT_DIR) / METRICS) >= trainer.max_iter
    return trainer.start_iter >= trainer.max_iter and (evaluated or not trainer.cfg.DATASETS.VAL)


def _earlier_results(cfg: CfgNode, trainer: Trainer) -> dict[str, Any] | None:
    """Return what a finished run has scored already, None where its scores are not there."""
    path = Path(cfg.OUTPUT_DIR) / "results.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    asked = {"test": _first(cfg.DATASETS.TEST), "valid": _first(cfg.DATASETS.VAL)}
    known = earlier.get("steps") == trainer.max_iter and all(
        (earlier.get(split) or {}).get("dataset") == name for split, name in asked.items()
    )
    return earlier if known and any(asked.values()) else None


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
    threshold, first = built.facts.score_threshold, cfg.DATASETS.TEST[0]
    points = explain(cfg, cfg.DATASETS.TEST, threshold)
    results = {
        "model": cfg.MODEL.WEIGHTS,
        "iteration": built.facts.iteration,
        "classes": list(built.class_names),
        "test": headline(cfg, first, scores),
        "operating_point": operating_point(points, threshold, valid=None, test=first),
    }
    # Beside the predictions that it sums up; the run's own results.json stays as it is.
    write_results(Path(cfg.OUTPUT_DIR) / "inference" / first, results)
    logger.info("Scores:\n%s", format_results_table(results), extra={"result": True})
    return results


def _constant_box(cfg: CfgNode) -> dict[str, dict[str, float]]:
    """Return what the training split's median box scores on the first test set."""
    json_file, category_ids = ground_truth(cfg.DATASETS.TEST[0])
    training = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
    return constant_box_scores(training, json_file, category_ids, masks=cfg.MODEL.MASK_ON)
