"""A whole run: train, choose the best model, score it on the test split, keep the numbers.

The validation split tunes the score threshold, which the model stores; the test split is scored
with it and has no say in it. No drawing threshold plays a part.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.utils import comm
from torch import nn

from persondet.checkpoint.model_file import CarriedFacts, model_record, store_score_threshold
from persondet.data.register import class_names, ground_truth, image_count
from persondet.engine.console import METRICS, last_row
from persondet.engine.defaults import config_text, setup
from persondet.engine.resumption import saying_how_to_resume
from persondet.engine.run_folder import (
    best_is_chosen,
    build_inference_model,
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
    start, resume, folder = time.perf_counter(), args.resume, Path(cfg.OUTPUT_DIR)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    new = trainer.checkpointer.resumed_from is None
    if new and resume:
        refuse_lost_checkpoints(folder)
    if comm.is_main_process():
        if new:
            # Only now is the run known to start; refuse_used_folder has seen to the permission.
            remove_run(folder)
        write_text(folder / "config.yaml", config_text(cfg))
        if not _is_trained(trainer):
            write_training_records(cfg, trainer.checkpointer.key_report, new=new)
    comm.synchronize()
    valid, test = (next(iter(cfg.DATASETS[key]), None) for key in ("VAL", "TEST"))
    names = list(dict.fromkeys([*cfg.DATASETS.VAL[:1], *cfg.DATASETS.TEST]))
    if _is_trained(trainer):
        logger.info("%s: the training is finished; nothing is trained again.", folder)
        if earlier := _earlier_results(trainer, names):
            _show(earlier)
            return earlier if comm.is_main_process() else {}
    else:
        with provenance(
            cfg, args.config_file, args.opts, lambda: int(trainer.scheduler.last_epoch)
        ):
            trainer.train()
    trained = time.perf_counter()
    if comm.is_main_process() and not best_is_chosen(folder):
        logger.warning("No score on a validation split: the best model is the last.")
        last = trainer.max_iter - 1
        trainer.checkpointer.save_model("model_best", iteration=last)
        unscored = {"metric": None, "score": None, "iteration": last}
        write_json(folder / "model_best.json", unscored)
    comm.synchronize()
    if not names:
        logger.warning("No validation and no test split: the run ends without a final score.")
        return {}
    best = find_model(folder)
    trainer.checkpointer.load(str(best), checkpointables=[])
    chosen = json.loads((folder / "model_best.json").read_text(encoding="utf-8"))
    facts = CarriedFacts(
        class_names=class_names(cfg.DATASETS.TRAIN[0]), iteration=chosen["iteration"]
    )
    written = _score(cfg, trainer.model, names, str(best), facts, tune_on=valid)
    if not written:
        return {}
    splits = {split: written[name] for split, name in (("test", test), ("valid", valid)) if name}
    scored = next(iter(splits.values()))
    results = {
        "model": best.name,
        "model_sha256": scored["model"]["sha256"],
        "iteration": scored["iteration"],
        "classes": scored["classes"],
        "steps": trainer.max_iter,
        "chosen_by": {"metric": chosen["metric"], "score": chosen["score"]},
        **{split: one["test"] for split, one in splits.items()},
        **_several(written, cfg.DATASETS.TEST),
        "operating_point": _both(splits),
        **({"constant_box": _constant_box(cfg)} if test else {}),
        "freeze_at": cfg.MODEL.BACKBONE.FREEZE_AT,
        "initial_weights": cfg.MODEL.WEIGHTS,
        "seconds": {"train": trained - start, "test": time.perf_counter() - trained},
    }
    write_results(folder, results)
    _show(results)
    return results


def _both(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return one operating point with the counts on both splits; None when neither has any."""
    known = {split: one["operating_point"] for split, one in splits.items()}
    counts = {split: point and point["test"] for split, point in known.items()}
    first = next(filter(None, known.values()), None)
    return first and {**first, "test": None, **counts}


def _several(written: Mapping[str, Any], datasets: Sequence[str]) -> dict[str, Any]:
    """Return the entry `tests` of `results.json`, which is there for several test sets alone."""
    tests = {name: written[name]["test"] for name in datasets}
    return {"tests": tests} if len(tests) > 1 else {}


def _show(results: dict[str, Any]) -> None:
    split = "test" if results.get("test") else "valid"
    title = "Test split" if split == "test" else "No test split; validation split"
    others = list(results.get("tests", {}).values())[1:]
    tables = [format_results_table(results, split)]
    tables += [format_results_table({"test": entry}) for entry in others]
    logger.info("%s:\n%s", title, "\n\n".join(tables), extra={"result": True})


def _is_trained(trainer: Trainer) -> bool:
    """Return whether every step is done, and the evaluation after the last of them too."""
    evaluated = last_row(Path(trainer.cfg.OUTPUT_DIR) / METRICS) >= trainer.max_iter
    return trainer.start_iter >= trainer.max_iter and (evaluated or not trainer.cfg.DATASETS.VAL)


def _earlier_results(trainer: Trainer, names: Sequence[str]) -> dict[str, Any] | None:
    """Return the scores of a finished run, None where it has not scored just these datasets."""
    if not (Path(trainer.cfg.OUTPUT_DIR) / RESULTS).is_file():
        return None
    earlier = read_results(trainer.cfg.OUTPUT_DIR)
    scored = [entry["dataset"] for split in ("valid", "test") if (entry := earlier.get(split))]
    known = list(dict.fromkeys([*scored, *earlier.get("tests", ())]))
    same = names and known == names and earlier.get("steps") == trainer.max_iter
    return earlier if same else None


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
    facts = replace(built.facts, class_names=built.class_names)
    # The scores lie beside the predictions; the run's own results.json stays as it is.
    written = _score(cfg, built.model, names, cfg.MODEL.WEIGHTS, facts)
    if not written:
        return {}
    tables = "\n\n".join(format_results_table(results) for results in written.values())
    logger.info("Scores:\n%s", tables, extra={"result": True})
    return {**written[names[0]], **_several(written, names)}


def _constant_box(cfg: CfgNode) -> dict[str, dict[str, float]]:
    """Return what the training split's median box scores on the first test set."""
    json_file, category_ids = ground_truth(cfg.DATASETS.TEST[0])
    training = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=False)
    return constant_box_scores(training, json_file, category_ids, masks=cfg.MODEL.MASK_ON)


def _score(
    cfg: CfgNode,
    model: nn.Module,
    names: Sequence[str],
    weights: str,
    facts: CarriedFacts,
    *,
    tune_on: str | None = None,
) -> dict[str, dict[str, Any]]:
    """Score a model, and write beside the predictions on each dataset what explains the scores.

    Args:
        cfg: of the run.
        model: to score; all ranks share its work.
        names: the datasets.
        weights: the file that the model comes from.
        facts: the model's classes, its iteration, and its threshold where it is tuned already.
        tune_on: the validation set; the file gets the `operating_threshold` of it.

    Returns: by dataset the `results.json` of its folder; empty on all ranks but the first.
    """
    logger.info("Scoring %s on %s", Path(weights).name, ", ".join(names))
    scores: dict[str, dict[str, Any]] = {}
    analyses: dict[str, Analysis] = {}
    for name in names:
        scores[name], analysis = evaluate_and_analyse(cfg, model, name, Trainer.build_test_loader)
        if analysis is not None:
            analyses[name] = analysis
    if not comm.is_main_process():
        return {}
    threshold = facts.score_threshold
    if tune_on in analyses:
        threshold = tuned_threshold(analyses[tune_on], tune_on, Path(weights))
    record = model_record(weights, facts.iteration)  # the threshold is in the file by now
    written = {
        name: {
            "model": record,
            "iteration": facts.iteration,
            "classes": list(facts.class_names),
            "test": entry,
            "operating_point": explain(cfg, name, analyses[name], threshold, model=record)
            if name in analyses
            else None,
        }
        for name, entry in headlines(cfg, scores).items()
    }
    for name, results in written.items():
        write_results(dataset_folder(cfg, name), results)
    return written


_POINT = ("precision", "recall", "f1", "hits", "misses", "false_alarms")


def tuned_threshold(analysis: Analysis, dataset: str, model_file: Path) -> float | None:
    """Store in `model_file` the `operating_threshold` of `dataset`, and return it.

    `model_final.pth` and the periodic checkpoints are other models, with other scores: they carry
    none.

    Args:
        analysis: of the validation set.
        dataset: its name.
        model_file: the checkpoint that made the predictions.

    Returns: None, and the checkpoint carries none, when no prediction finds anybody.
    """
    threshold = analysis.operating_threshold()
    if threshold is None:
        logger.warning(
            "%s: nobody is found at any score threshold, so none is stored in %s.",
            *(dataset, model_file.name),
        )
    store_score_threshold(model_file, threshold)
    return threshold


def explain(
    cfg: CfgNode,
    dataset: str,
    analysis: Analysis,
    threshold: float | None,
    *,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `curves.json`, `errors.json` and `gallery/` beside the predictions on a dataset.

    Args:
        cfg: of the run.
        dataset: its name.
        analysis: of the predictions on it.
        threshold: what the model carries; None: 0.5 stands in.
        model: the record of the checkpoint that made the predictions; see
            `persondet.checkpoint.model_file.model_record`.

    Returns: the entry `operating_point` of its `results.json`: `task`, `iou`, `threshold`, `tuned`
    (False: 0.5 stands in for a tuned one), `valid` (None) and `test`: `precision`, `recall`, `f1`,
    `hits`, `misses`, `false_alarms`.
    """
    records = get_detection_dataset_dicts((dataset,), filter_empty=False)
    files = {record["image_id"]: record["file_name"] for record in records}
    analysis.write(dataset_folder(cfg, dataset), dataset, files, threshold=threshold, model=model)
    counts = analysis.counts_at(DEFAULT_THRESHOLD if threshold is None else threshold)
    logger.info(
        "%s, score threshold %.4g%s: %d of %d annotated found, %d missed, %d false alarms.",
        *(dataset, counts["threshold"], "" if threshold is not None else " (none was tuned)"),
        *(counts["hits"], counts["hits"] + counts["misses"]),
        *(counts["misses"], counts["false_alarms"]),
    )
    return {
        "task": analysis.task,
        "iou": FOUND_IOU,
        "threshold": counts["threshold"],
        "tuned": threshold is not None,
        "valid": None,
        "test": {key: counts[key] for key in _POINT},
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


def dataset_folder(cfg: CfgNode, dataset: str) -> Path:
    """Return where a run keeps its predictions on a dataset and what follows from them."""
    return Path(cfg.OUTPUT_DIR) / "inference" / dataset
