"""A whole run: train, choose the best model, score it on the test split, keep the numbers.

The validation split tunes the score threshold, which the model stores; the test split is scored
with it and has no say in it. No drawing threshold plays a part.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm
from torch import nn

from persondet.checkpoint.model_file import model_record, store_score_threshold
from persondet.data.register import class_names, ground_truth, image_count
from persondet.engine.defaults import config_text, setup
from persondet.engine.events import METRICS, last_row
from persondet.engine.inference_model import build_inference_model
from persondet.engine.interruption import saying_how_to_resume
from persondet.engine.run_folder import (
    best_is_chosen,
    find_model,
    refuse_lost_checkpoints,
    remove_run,
    reserved,
)
from persondet.engine.run_records import dataset_report, provenance, write_training_records
from persondet.engine.train_step import memory_in_one_sentence
from persondet.engine.trainer import Trainer
from persondet.errors import ConfigError
from persondet.evaluation import evaluate_and_analyse
from persondet.evaluation.analysis import FOUND_IOU, Analysis
from persondet.evaluation.evaluator import constant_box_scores
from persondet.files import write_json, write_text
from persondet.results import (
    DEFAULT_THRESHOLD,
    RunError,
    format_results_table,
    leak_figure,
    read_results,
    write_results,
)
from persondet.results import FILE_NAME as RESULTS

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
    names = list(dict.fromkeys([*cfg.DATASETS.VAL[:1], *cfg.DATASETS.TEST]))
    logger.info("Scoring %s on %s", best.name, ", ".join(names))
    scores, analyses = _scores(cfg, trainer.model, names)
    if not comm.is_main_process():
        return {}
    entries = headlines(cfg, scores)
    valid, test = _first(cfg.DATASETS.VAL), _first(cfg.DATASETS.TEST)
    threshold = tuned_threshold(analyses[valid], valid, best) if valid in analyses else None
    chosen = json.loads((Path(cfg.OUTPUT_DIR) / "model_best.json").read_text(encoding="utf-8"))
    model = model_record(str(best), chosen["iteration"])  # the threshold is in the file by now
    points = explain(cfg, analyses, threshold, model=model)
    classes = list(class_names(cfg.DATASETS.TRAIN[0]))
    facts = {"model": model, "iteration": model["iteration"], "classes": classes}
    write_dataset_results(cfg, entries, facts, points, threshold)
    results = {
        **facts,
        "model": best.name,
        "model_sha256": model["sha256"],
        "steps": trainer.max_iter,
        "chosen_by": {"metric": chosen["metric"], "score": chosen["score"]},
        **{split: entries[name] for split, name in (("test", test), ("valid", valid)) if name},
        **_several(entries, cfg.DATASETS.TEST),
        "operating_point": operating_point(points, threshold, valid=valid, test=test),
        **({"constant_box": _constant_box(cfg)} if test else {}),
        "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        "initial_weights": cfg.MODEL.WEIGHTS,
        "seconds": {"train": trained - start, "test": time.perf_counter() - trained},
    }
    write_results(cfg.OUTPUT_DIR, results)
    _show(results)
    return results


def _scores(
    cfg: CfgNode, model: nn.Module, datasets: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, Analysis]]:
    """Return the scores of a model by dataset, and what explains them."""
    scores, analyses = {}, {}
    for name in datasets:
        scores[name], analysis = evaluate_and_analyse(cfg, model, name, Trainer.build_test_loader)
        if analysis is not None:
            analyses[name] = analysis
    return scores, analyses


def _first(datasets: Sequence[str]) -> str | None:
    return datasets[0] if datasets else None


def _several(entries: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, Any]:
    """Return the entry `tests` of `results.json`, which is there for several test sets alone."""
    tests = {name: entries[name] for name in datasets}
    return {"tests": tests} if len(tests) > 1 else {}


def _show(results: dict[str, Any]) -> None:
    split = "test" if results.get("test") else "valid"
    title = "Test split" if split == "test" else "No test split; validation split"
    tables = [format_results_table(results, split)]
    first = results[split].get("dataset")
    tables += [
        format_results_table({"test": entry})
        for name, entry in results.get("tests", {}).items()
        if name != first
    ]
    logger.info("%s:\n%s", title, "\n\n".join(tables), extra={"result": True})


def _is_trained(trainer: Trainer) -> bool:
    """Return whether every step is done, and the evaluation after the last of them too."""
    evaluated = last_row(Path(trainer.cfg.OUTPUT_DIR) / METRICS) >= trainer.max_iter
    return trainer.start_iter >= trainer.max_iter and (evaluated or not trainer.cfg.DATASETS.VAL)


def _earlier_results(cfg: CfgNode, trainer: Trainer) -> dict[str, Any] | None:
    """Return what a finished run has scored already, None where its scores are not there."""
    if not (Path(cfg.OUTPUT_DIR) / RESULTS).is_file():
        return None
    try:
        earlier = read_results(cfg.OUTPUT_DIR)
    except RunError as error:
        logger.warning("The model is scored again: %s", error)
        return None
    asked = {"test": _first(cfg.DATASETS.TEST), "valid": _first(cfg.DATASETS.VAL)}
    several = dict.fromkeys(cfg.DATASETS.TEST)
    known = (
        earlier.get("steps") == trainer.max_iter
        and all((earlier.get(split) or {}).get("dataset") == name for split, name in asked.items())
        and (len(several) < 2 or list(earlier.get("tests", {})) == list(several))
    )
    return earlier if known and any(asked.values()) else None


def _evaluate_only(cfg: CfgNode, *, resume: bool) -> dict[str, Any]:
    names = list(dict.fromkeys(cfg.DATASETS.TEST))
    if not names:
        raise ConfigError(
            "config: DATASETS.TEST is empty and the export has no test split; name a registered "
            "dataset, such as DATASETS.TEST \"('person_valid',)\"."
        )
    classes = class_names(names[0])
    for name in names[1:]:
        if class_names(name) != classes:
            raise ConfigError(
                f"config: DATASETS.TEST names {names[0]} and {name}, whose classes differ; score "
                "them one after the other."
            )
    if resume:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.WEIGHTS = str(find_model(cfg.OUTPUT_DIR))
        cfg.freeze()
    built = build_inference_model(cfg, classes)
    scores, analyses = _scores(cfg, built.model, names)
    if not comm.is_main_process():
        return {}
    entries = headlines(cfg, scores)
    threshold = built.facts.score_threshold
    model = model_record(cfg.MODEL.WEIGHTS, built.facts.iteration)
    points = explain(cfg, analyses, threshold, model=model)
    facts = {
        "model": model,
        "iteration": built.facts.iteration,
        "classes": list(built.class_names),
    }
    # Beside the predictions that they sum up; the run's own results.json stays as it is.
    written = write_dataset_results(cfg, entries, facts, points, threshold)
    tables = "\n\n".join(format_results_table(results) for results in written.values())
    logger.info("Scores:\n%s", tables, extra={"result": True})
    return {**written[names[0]], **_several(entries, names)}


def _constant_box(cfg: CfgNode) -> dict[str, dict[str, float]]:
    """Return what the training split's median box scores on the first test set."""
    json_file, category_ids = ground_truth(cfg.DATASETS.TEST[0])
    training = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
    return constant_box_scores(training, json_file, category_ids, masks=cfg.MODEL.MASK_ON)


_POINT = ("precision", "recall", "f1", "hits", "misses", "false_alarms")


def tuned_threshold(analysis: Analysis, dataset: str, model_file: Path) -> float | None:
    """Store in `model_file` the threshold with the best F1 on `dataset`, and return it.

    `model_final.pth` and the periodic checkpoints are other models, with other scores: they carry
    none.

    Args:
        analysis: of the validation set.
        dataset: its name.
        model_file: the checkpoint that made the predictions.

    Returns: None, and the checkpoint carries none, when no prediction finds anybody.
    """
    threshold = analysis.best_threshold()
    if threshold is None:
        logger.warning(
            "%s: nobody is found at any score threshold, so none is stored in %s.",
            *(dataset, model_file.name),
        )
    store_score_threshold(model_file, threshold)
    return threshold


def explain(
    cfg: CfgNode,
    analyses: Mapping[str, Analysis],
    threshold: float | None,
    *,
    model: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Write `curves.json`, `errors.json` and `gallery/` beside the predictions on each dataset.

    Args:
        cfg: of the run.
        analyses: by dataset.
        threshold: what the model carries; None: 0.5 stands in.
        model: the record of the checkpoint that made the predictions; see
            `persondet.checkpoint.model_file.model_record`.

    Returns: dataset to what the threshold gives there; see `persondet.evaluation.curves.counts_at`.
    """
    points = {}
    for name, analysis in analyses.items():
        folder, files = dataset_folder(cfg, name), image_files(name)
        analysis.write(folder, name, files, threshold=threshold, model=model)
        used = DEFAULT_THRESHOLD if threshold is None else threshold
        point = points[name] = {"task": analysis.task, **analysis.counts_at(used)}
        logger.info(
            "%s, score threshold %.4g%s: %d of %d annotated found, %d missed, %d false alarms.",
            *(name, used, "" if threshold is not None else " (none was tuned)"),
            *(point["hits"], point["hits"] + point["misses"]),
            *(point["misses"], point["false_alarms"]),
        )
    return points


def operating_point(
    points: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
    *,
    valid: str | None,
    test: str | None,
) -> dict[str, Any] | None:
    """Return the entry of `results.json`; None when nothing was scored.

    Args:
        points: what `explain` returned.
        threshold: what the model carries.
        valid, test: the datasets, None where there is none.

    Returns: `task`, `iou`, `threshold`, `tuned` (False: 0.5 stands in for a tuned one), `valid` and
    `test`: `precision`, `recall`, `f1`, `hits`, `misses`, `false_alarms`, or None.
    """
    known = {split: points.get(name or "") for split, name in (("valid", valid), ("test", test))}
    first = known["valid"] or known["test"]
    if first is None:
        return None
    return {
        "task": first["task"],
        "iou": FOUND_IOU,
        "threshold": first["threshold"],
        "tuned": threshold is not None,
        **{
            split: None if point is None else {key: point[key] for key in _POINT}
            for split, point in known.items()
        },
    }


def headlines(cfg: CfgNode, scores: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the entry of `results.json` of each dataset, by name.

    Args:
        cfg: of the run.
        scores: dataset to what `persondet.evaluation.evaluate` returned of it.
    """
    report = dataset_report(cfg, list(scores)) or {}
    own = f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    return {
        name: {
            "dataset": name,
            "images": image_count(name),
            **found,
            "leaks": leak_figure(report, name.removeprefix(own)) if name.startswith(own) else None,
        }
        for name, found in scores.items()
    }


def write_dataset_results(
    cfg: CfgNode,
    entries: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    points: Mapping[str, Mapping[str, Any]],
    threshold: float | None,
) -> dict[str, dict[str, Any]]:
    """Write `results.json` beside the predictions on each dataset, and return them by name.

    Args:
        cfg: of the run.
        entries: what `headlines` returned.
        facts: `model` (a record), `iteration`, `classes`.
        points: what `explain` returned.
        threshold: what the model carries.
    """
    written = {
        name: {
            **facts,
            "test": entry,
            "operating_point": operating_point(points, threshold, valid=None, test=name),
        }
        for name, entry in entries.items()
    }
    for name, results in written.items():
        write_results(dataset_folder(cfg, name), results)
    return written


def image_files(dataset: str) -> dict[int, str]:
    """Return the path of each image of a registered dataset, by image id."""
    records = get_detection_dataset_dicts((dataset,), filter_empty=False)
    return {record["image_id"]: record["file_name"] for record in records}


def dataset_folder(cfg: CfgNode, dataset: str) -> Path:
    """Return where a run keeps its predictions on a dataset and what follows from them."""
    return Path(cfg.OUTPUT_DIR) / "inference" / dataset
