"""Models that judge images they have not seen: one for each part of an export, without that part.

Source: the out-of-fold predictions of Northcutt et al., "Confident Learning: Estimating
Uncertainty in Dataset Labels", JAIR 2021, section 3.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from persondet.data.check import look_at_images
from persondet.data.clean import write_split
from persondet.data.coco_json import CocoDict, coco_bytes, with_numbers
from persondet.data.inspect.categories import text_and_id
from persondet.data.inspect.images import ImageFacts
from persondet.data.roboflow import Export
from persondet.data.split import deal_groups, group_images, group_keys, merge_coco
from persondet.environment import process_pool
from persondet.errors import DatasetError
from persondet.files import atomic_folder, write_text
from persondet.inference.predictor import carried_cfg
from persondet.text import count_of

logger = logging.getLogger(__name__)

_KILLED = (
    "the training of a fold was killed, most likely because memory ran out; close other programs "
    "and run the command again: it goes on from the last checkpoint."
)


def train_folds(
    export: Export, run: str | Path, folder: str | Path, *, folds: int, seed: int = 0
) -> dict[tuple[str, str], Path]:
    """Train a model for each fold of an export's images, all splits together, on the other folds.

    Each is trained as `run` was, from the same initial weights, without a validation split. The
    trainings lie in `<folder>/folds-<digest>`, where the same command goes on with them; they
    belong to the labels, the config, the number of folds and the seed.

    Args:
        export: its images and labels.
        run: run folder or checkpoint that carries the config.
        folder: where the folder of the trainings is made.
        folds: how many, at least 2.

    Returns: (split, file name) of an image to the run folder of the model that has not seen it.

    Raises: DatasetError: when there are fewer images than folds.
        PersondetError: when the run carries no config, or a training fails.
    """
    cfg = carried_cfg(run)
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = cfg.DATASETS.TEST = ()
    cfg.DATASETS.ROBOFLOW.ROOT = cfg.OUTPUT_DIR = ""
    cfg.MODEL.DEVICE = "auto"
    facts = look_at_images(export)
    merged, origins = merge_coco([with_numbers(coco)[0] for coco in export.splits.values()])
    of_split = [facts[split] for split in export.splits]
    known = [of_split[n].get(name) if isinstance(name, str) else None for n, name in origins]
    fold_of = _deal(merged, origins, known, folds, seed)
    content = coco_bytes(merged) + f"{cfg.dump()} {folds} {seed}".encode()
    home = Path(folder) / f"folds-{hashlib.sha256(content).hexdigest()[:12]}"
    config = home / "config.yaml"
    write_text(config, cfg.dump())
    splits = list(export.folders)
    judge_of: dict[tuple[str, str], Path] = {}
    for fold in range(folds):
        data, output = home / f"data_{fold + 1}", home / f"fold_{fold + 1}"
        own = [place for place, number in enumerate(fold_of) if number not in (fold, -1)]
        judge_of |= {
            (splits[source], str(name)): output
            for (source, name), number in zip(origins, fold_of, strict=True)
            if number == fold
        }
        if not data.exists():
            images = [merged["images"][place] for place in own]
            ids = {image["id"] for image in images}
            annotations = [a for a in merged["annotations"] if _image_of(a) in ids]
            coco = {**merged, "images": images, "annotations": annotations}
            sources = [(export.folders[splits[origins[p][0]]], origins[p][1]) for p in own]
            with atomic_folder(data) as draft:
                write_split(draft / "train", coco, sources)
        if (output / "model_best.json").is_file():  # written when such a training is finished
            continue
        logger.info("Fold %d of %d: training on %d images", fold + 1, folds, len(own))
        resume = (output / "last_checkpoint").is_file()
        opts = ["DATASETS.ROBOFLOW.ROOT", str(data), "OUTPUT_DIR", str(output)]
        args = SimpleNamespace(
            config_file=str(config),
            opts=opts,
            resume=resume,
            overwrite=not resume,
            eval_only=False,
            quiet=True,
        )
        with process_pool(1, _KILLED) as pool:
            pool.submit(_train, args).result()
    return judge_of


def _deal(
    merged: CocoDict,
    origins: Sequence[tuple[int, Any]],
    known: Sequence[ImageFacts | None],
    folds: int,
    seed: int,
) -> list[int]:
    """Return the fold of each image, from 0; -1: nobody can read it.

    Versions of one image stay together, as in `persondet.data.split.split_coco`.
    """
    ids = [text_and_id(image, "file_name")[1] for image in merged["images"]]
    good = [fact and not fact.problem and n is not None for fact, n in zip(known, ids, strict=True)]
    usable = [place for place, is_good in enumerate(good) if is_good]
    facts = [fact for fact, is_good in zip(known, good, strict=True) if fact and is_good]
    groups = group_images(
        [group_keys(origins[p], ids[p], f, False) for p, f in zip(usable, facts, strict=True)],
        facts,
    )
    if len(groups) < folds:
        raise DatasetError(
            f"{count_of(len(groups), 'image')} that differ, for {folds} folds; ask for fewer "
            "--folds."
        )
    objects = Counter(map(_image_of, merged["annotations"]))
    counts = [[objects[ids[usable[index]]] for index in group] for group in groups]
    contents = [(len(each), sum(each), each.count(0)) for each in counts]
    fold_of = [-1] * len(ids)
    for group, fold in zip(groups, deal_groups(contents, [1 / folds] * folds, seed), strict=True):
        for index in group:
            fold_of[usable[index]] = fold
    return fold_of


def _image_of(annotation: Any) -> int | None:
    number = annotation.get("image_id") if isinstance(annotation, dict) else None
    return number if type(number) is int else None


def _train(args: Any) -> None:
    from persondet.engine.run import run

    run(args)
