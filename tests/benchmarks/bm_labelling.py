"""Whether an audit finds broken labels, and whether mined frames teach more than random ones.

python tests/benchmarks/bm_labelling.py audit --run output/demo --dataset datasets/sample/people
python tests/benchmarks/bm_labelling.py frames --run output/demo/model_0000219.pth
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pycocotools.mask as mask_util

if TYPE_CHECKING:
    from persondet.labelling.frames import Candidate

Boxes = Sequence[Sequence[float]]
FAULTS = ("missing", "shifted", "extra")
# Time, weather and layout, and how many people walk there: from easy to hard.
DIFFICULTIES = {
    "few by day": ("day", "clear", "mall", 3),
    "more by day": ("overcast", "clear", "mall", 8),
    "fog at dusk": ("dusk", "fog", "along", 11),
    "crowd at night": ("night", "clear", "along", 14),
}
SIZE = (640, 360)


def say(line: str) -> None:
    """Write a line of the result at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


# Labels broken on purpose


def break_labels(
    coco: dict[str, Any], rng: np.random.Generator, share: float
) -> tuple[dict[str, Any], list[tuple[str, Any]]]:
    """Return a COCO dict with a share of its labels broken, a third each way, and which.

    A label is left out; moved by 0.4 to 0.8 of its width or height, outline and all; or added, the
    size of another one somewhere on any image.

    Returns: the dict, and (fault, annotation id, or image id and box of a missing one).
    """
    labels, images = coco["annotations"], coco["images"]
    size = {image["id"]: np.array([image["width"], image["height"]]) for image in images}
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    gone, moved, added = (part.tolist() for part in np.array_split(chosen, 3))
    broken: list[tuple[str, Any]] = [
        ("missing", (labels[n]["image_id"], labels[n]["bbox"])) for n in gone
    ]
    kept = []
    for number, label in enumerate(labels):
        if number in moved:
            x, y, w, h = label["bbox"]
            step = rng.uniform(0.4, 0.8) * rng.choice([-1, 1])
            offset = np.array([step * w, 0.0] if rng.random() < 0.5 else [0.0, step * h])
            room = size[label["image_id"]] - (w, h)
            if not 0 <= x + offset[0] <= room[0] or not 0 <= y + offset[1] <= room[1]:
                offset *= -1
            place = np.clip((x, y) + offset, 0, np.maximum(room, 0))
            label = _placed(label, place, label["id"])
            broken.append(("shifted", label["id"]))
        if number not in gone:
            kept.append(label)
    for number in added:
        image = images[int(rng.integers(len(images)))]["id"]
        label = labels[int(rng.integers(len(labels)))]
        room = np.maximum(size[image] - label["bbox"][2:], 0)
        new = _placed(label, rng.uniform(0, 1, 2) * room, 1_000_000 + number)
        kept.append(new | {"image_id": image})
        broken.append(("extra", new["id"]))
    return {**coco, "annotations": kept}, broken


def _placed(label: dict[str, Any], corner: Any, number: int) -> dict[str, Any]:
    x, y, w, h = label["bbox"]
    offset = np.array(corner, float) - (x, y)
    outlines = [(np.reshape(p, (-1, 2)) + offset).ravel().tolist() for p in label["segmentation"]]
    box = [float(corner[0]), float(corner[1]), w, h]
    return label | {"id": number, "bbox": box, "segmentation": outlines}


def audit(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Break labels, audit them, and count how many of them stand among the first rows."""
    from persondet.data.roboflow import ANNOTATION_FILE, read_export
    from persondet.files import link_or_copy
    from persondet.labelling.audit import audit_export

    found = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        with tempfile.TemporaryDirectory() as scratch:
            home = Path(args.output or scratch, f"{seed}")
            export, broken = read_export(args.dataset), []
            for number, split in enumerate(args.splits or export.splits):
                coco = json.loads(export.jsons[split].read_text(encoding="utf-8"))
                rng = np.random.default_rng([seed, number])
                coco, here = break_labels(coco, rng, args.share)
                names = {image["id"]: image["file_name"] for image in coco["images"]}
                for name in names.values():
                    link_or_copy(export.folders[split] / name, home / "in" / split / name)
                (home / "in" / split / ANNOTATION_FILE).write_text(json.dumps(coco))
                broken += [
                    (fault, split, (names[what[0]], what[1]) if fault == "missing" else str(what))
                    for fault, what in here
                ]
            audit_export(home / "in", home / "out", args.run, folds=args.folds)
            with (home / "out" / "audit.csv").open(encoding="utf-8") as file:
                found.append(_counted(list(csv.DictReader(file)), broken) | {"seed": seed})
        say(json.dumps(found[-1]))
    return found


def _counted(rows: list[dict[str, str]], broken: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    """Return how many of the broken labels stand among the first 15 % of the rows."""
    waiting, places = list(broken), []
    for place, row in enumerate(rows):
        for one in waiting:
            fault, split, what = one
            if split != row["split"]:
                continue
            if fault == "missing":
                box = [float(row[key]) for key in ("x", "y", "width", "height")]
                same = not row["annotation_id"] and row["file_name"] == what[0]
                hit = same and float(mask_util.iou([box], [what[1]], [0])[0, 0]) >= 0.5
            else:
                hit = row["annotation_id"] == what
            if hit:
                waiting.remove(one)
                places.append((place, fault))
                break
    labels = sum(bool(row["annotation_id"]) for row in rows)
    first = math.ceil(0.15 * len(rows)), math.ceil(0.15 * labels)
    kinds = Counter(fault for place, fault in places if place < first[0])
    return {
        "rows": len(rows),
        "annotations": labels,
        "broken": len(broken),
        "found in 15 % of the rows": sum(place < first[0] for place, _ in places) / len(broken),
        "found in 15 % of the annotations": sum(p < first[1] for p, _ in places) / len(broken),
        **{f"{kind}": f"{kinds[kind]} of {sum(b[0] == kind for b in broken)}" for kind in FAULTS},
    }


# Frames


def write_walk(path: Path, difficulty: str, seed: int, frames: int) -> list[list[dict[str, Any]]]:
    """Write a clip of five frames a second, and return the people of each frame."""
    from persondet.sample.clip import _plan_tracks, _Walk
    from persondet.sample.scene import empty_scene, furnish, scene_rng
    from persondet.video.writer import VideoWriter

    rng = scene_rng(seed, difficulty)
    *setting, count = DIFFICULTIES[difficulty]
    time, weather, layout = (str(word) for word in setting)
    scene = empty_scene(rng, SIZE, (time, weather, layout), 1.42)
    furnish(scene, rng)
    walk = _Walk(scene, _plan_tracks(rng, scene, int(count)), SIZE, seed)
    people = []
    with VideoWriter(path, width=SIZE[0], height=SIZE[1], fps=Fraction(5), threads=1) as writer:
        for number in range(frames):
            image, here = walk.frame(10.4 * (number + 0.5) / frames)
            people.append(here)
            writer.write(image)
    return people


def frames(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Fine-tune on mined and on as many random frames; return the box AP50 of both, by seed."""
    from persondet.environment import process_pool
    from persondet.labelling.frames import pick_frames, unsure_predictor, watch_clip

    rows = []
    known: dict[str, float] = {}
    home = Path(args.output or tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    predictor, threshold = unsure_predictor(args.run)
    held_out = {}
    for name in DIFFICULTIES if args.steps else ():
        clip = home / f"valid {name}.mp4"
        held_out[clip] = write_walk(clip, name, 1000, args.valid)
    chosen_valid = [(clip, n) for clip, people in held_out.items() for n in range(len(people))]
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        people, watched = dict(held_out), []
        for name in DIFFICULTIES:
            clip = home / f"{seed} {name}.mp4"
            people[clip] = write_walk(clip, name, seed, args.frames)
            watched += watch_clip(clip, predictor, threshold, every=0.2)
        rng = np.random.default_rng(seed)
        sets = {
            "mined": pick_frames(watched, args.count),
            "random": [watched[n] for n in rng.permutation(len(watched))[: args.count]],
        }
        row: dict[str, Any] = {"seed": seed, "frames": len(watched)}
        for kind, chosen in {**sets, "all": watched}.items():
            wrong = [mistakes(one, people[one.clip][one.index]) for one in chosen]
            row[f"mistakes on a frame, {kind}"] = round(float(np.mean(wrong)), 2)
        for kind, chosen in sets.items() if args.steps else ():
            data, output = home / f"{seed}_{kind}", home / f"{seed}_{kind}_run"
            write_labelled(data / "train", [(one.clip, one.index) for one in chosen], people)
            write_labelled(data / "valid", chosen_valid, people)
            with process_pool(1, "a training was killed.") as pool:
                if "before" not in known:
                    given = (args.run, data, output, seed, 1, 0.0)
                    known["before"] = pool.submit(_ap50, *given).result()
                given = (args.run, data, output, seed, args.steps, 0.3)
                row[kind] = pool.submit(_ap50, *given).result()
            counts = Counter(one.clip.stem.partition(" ")[2] for one in chosen)
            row[f"{kind} frames"] = {name: counts[name] for name in DIFFICULTIES}
            row[f"{kind} people"] = sum(len(people[one.clip][one.index]) for one in chosen)
            shutil.rmtree(data)
        rows.append(row | known)
        say(json.dumps(rows[-1]))
    if not args.steps:
        return rows
    gains = [row["mined"] - row["random"] for row in rows]
    say(
        f"box AP50 of mined less random frames: {', '.join(f'{gain:+.1f}' for gain in gains)}; "
        f"mean {np.mean(gains):+.1f}"
    )
    return rows


def mistakes(one: Candidate, people: Sequence[dict[str, Any]]) -> int:
    """Return how many people a frame's boxes miss at IoU 0.5, and how many boxes are on nobody."""
    from detectron2.structures import Boxes, pairwise_iou

    true = np.reshape([person["box"] for person in people], (-1, 4))
    near = np.asarray(pairwise_iou(Boxes(true), Boxes(one.boxes))) >= 0.5
    # A box that takes a person's place leaves none for another box.
    hits = min(int(near.any(axis=0).sum()), int(near.any(axis=1).sum()))
    return len(true) + len(one.boxes) - 2 * hits


def write_labelled(
    folder: Path,
    chosen: Sequence[tuple[Path, int]],
    people: dict[Path, list[list[dict[str, Any]]]],
) -> None:
    """Write frames of clips and their ground truth as a split."""
    from persondet.data.coco_json import write_coco
    from persondet.data.image_file import write_image
    from persondet.data.roboflow import ANNOTATION_FILE
    from persondet.data.shapes import mask_to_polygons, polygon_box
    from persondet.video.reader import VideoReader

    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    for clip in dict.fromkeys(clip for clip, _ in chosen):
        wanted = {index for other, index in chosen if other == clip}
        with VideoReader(clip) as reader:
            for frame in (frame for frame in reader if frame.index in wanted):
                number = len(images) + 1
                name = f"{clip.stem.replace(' ', '_')}_{frame.index}.jpg"
                write_image(folder / name, frame.image)
                size = {"width": SIZE[0], "height": SIZE[1]}
                images.append({"id": number, "file_name": name, **size})
                for person in people[clip][frame.index]:
                    outlines = mask_to_polygons(mask_util.decode(person["mask"]).astype(bool))
                    if outlines:
                        box = polygon_box(outlines)
                        own: dict[str, Any] = {"id": len(labels) + 1, "image_id": number}
                        own |= {"bbox": box, "area": box[2] * box[3], "iscrowd": 0}
                        labels.append(own | {"category_id": 1, "segmentation": outlines})
    categories = [{"id": 1, "name": "person", "supercategory": "none"}]
    coco = {"info": {}, "licenses": [], "categories": categories, "images": images}
    write_coco(folder / ANNOTATION_FILE, coco | {"annotations": labels})


def _ap50(
    model: str, data: Path, output: Path, seed: int, steps: int, share_of_rate: float
) -> float:
    """Fine-tune the model on an export; return the box AP50 on its validation split.

    Args:
        share_of_rate: of the run's learning rate; 0: the model stays as it is.
    """
    from persondet.engine.run import run
    from persondet.files import write_text
    from persondet.inference.predictor import run_cfg

    cfg = run_cfg(model)
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = cfg.DATASETS.TEST = ()
    cfg.MODEL.DEVICE = "auto"
    cfg.SOLVER.MAX_ITER = cfg.SOLVER.CHECKPOINT_PERIOD = cfg.TEST.EVAL_PERIOD = steps
    cfg.SOLVER.BASE_LR *= max(share_of_rate, 1e-9)
    cfg.SOLVER.WARMUP_ITERS = min(cfg.SOLVER.WARMUP_ITERS, steps // 5)
    cfg.SEED = seed
    config = data.parent / "config.yaml"
    write_text(config, cfg.dump())
    opts = ["DATASETS.ROBOFLOW.ROOT", str(data), "OUTPUT_DIR", str(output)]
    flags = {"resume": False, "overwrite": True, "eval_only": False, "quiet": True}
    results = run(argparse.Namespace(config_file=str(config), opts=opts, **flags))
    shutil.rmtree(output)
    return float(results["valid"]["bbox"]["AP50"])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the two, and print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["audit", "frames"])
    parser.add_argument("--run", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dataset", default="datasets/sample/people")
    parser.add_argument("--splits", nargs="*")
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--folds", type=int, default=0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=16, help="frames to label")
    parser.add_argument("--frames", type=int, default=40, help="of each of the four clips")
    parser.add_argument("--valid", type=int, default=12, help="of each validation clip")
    more = "of fine-tuning; 0: count the model's mistakes on the frames, and train nothing"
    parser.add_argument("--steps", type=int, default=60, help=more)
    parser.add_argument("--output")
    args = parser.parse_args(argv)
    (audit if args.mode == "audit" else frames)(args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
