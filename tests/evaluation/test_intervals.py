"""The bootstrap: exact for the draw that it is, and wide enough for the truth."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from persondet.evaluation.coco_metrics import coco_metrics, rankings
from persondet.evaluation.image_matches import IOU_THRESHOLDS, Matches
from persondet.evaluation.intervals import average_precisions, bootstrap_intervals
from tests.evaluation.coco_scenes import matches_of, plain_metrics, random_scene


@pytest.mark.parametrize("seed", range(6))
def test_a_draw_scores_as_pycocotools_says_of_a_dataset_with_those_images(seed):
    rng = np.random.default_rng(seed)
    coco, found = random_scene(rng, images=6, classes=1, most=8)
    # Of equal scores, the order is the image's in the draw, and the copies' in the dataset.
    for record, score in zip(found, rng.permutation(len(found)) + 1, strict=True):
        record["score"] = float(score) / 100
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=3).astype(np.float32)
    for area, metric in enumerate(("AP", "APs", "APm", "APl")):
        for task in ("bbox", "segm"):
            ranking = rankings(matches_of(coco, found, task), area, 100)[0]
            ours = average_precisions(ranking, np.arange(6), weights).mean(axis=0) * 100
            for weight, value in zip(weights, ours, strict=True):
                drawn = _drawn(coco, found, weight.astype(int))
                if drawn[1]:
                    expected = plain_metrics(*drawn, task)[metric]
                    assert value == pytest.approx(expected, abs=1e-4, nan_ok=True)


def _drawn(coco, found, counts):
    """Return a dataset in which image `i` (by rising id) stands `counts[i]` times."""
    result, records = {**coco, "images": [], "annotations": []}, []
    for image, count in zip(sorted(coco["images"], key=lambda i: i["id"]), counts, strict=True):
        for _ in range(count):
            new = len(result["images"]) + 1
            result["images"].append({**image, "id": new})
            for source, target in ((coco["annotations"], result["annotations"]), (found, records)):
                own = [copy.deepcopy(o) for o in source if o["image_id"] == image["id"]]
                target += [{**one, "image_id": new} for one in own]
    for number, one in enumerate(result["annotations"]):
        one["id"] = number + 1
    return result, records


def simulated(rng: np.random.Generator, images: int) -> Matches:
    """Return matches of images that differ: on some nearly everybody is found, on some few are.

    A prediction that is right at an IoU is right at those below.
    """
    image, scores, levels, people = [], [], [], []
    for number in range(images):
        ease = rng.beta(2, 1)
        there = int(rng.integers(1, 7))
        people.append(there)
        hits = int(rng.binomial(there, 0.3 + 0.65 * ease))
        right = 1 + rng.binomial(len(IOU_THRESHOLDS) - 1, 0.2 + 0.6 * ease, hits)
        wrong = np.zeros(int(rng.poisson(1.5)), int)
        level = np.concatenate((right, wrong))
        score = rng.beta(np.where(level > 0, 4, 1.5), np.where(level > 0, 2, 3))
        order = np.argsort(-score)
        image += [number] * len(level)
        scores += score[order].tolist()
        levels += level[order].tolist()
    count = len(image)
    bits = ((1 << np.array(levels, np.int64)) - 1).astype(np.uint16)
    return Matches(
        image=np.array(image, np.int32),
        category=np.zeros(count, np.int32),
        rank=np.zeros(count, np.int32),
        scores=np.array(scores),
        matched=np.stack([bits] * 4),
        ignored=np.zeros((4, count), np.uint16),
        people=np.array([[people], *[[[0] * images]] * 3], np.int32),  # no sizes
    )


def coverage(images: int, cases: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    truth = coco_metrics(simulated(rng, 20_000), None)
    inside = dict.fromkeys(("AP", "AP50", "AP75"), 0)
    for _ in range(cases):
        intervals = bootstrap_intervals(simulated(rng, images), None, replicates=250)
        for metric in inside:
            low, high = intervals[metric]
            inside[metric] += low <= truth[metric] <= high
    return {metric: count / cases for metric, count in inside.items()}


@pytest.mark.slow
@pytest.mark.parametrize("images", [20, 60])
def test_the_interval_covers_the_truth_in_at_least_90_of_100_cases(images):
    assert all(share >= 0.9 for share in coverage(images, 150).values())


def test_more_images_give_a_narrower_interval_and_the_same_seed_the_same():
    rng = np.random.default_rng(3)
    few, many = simulated(rng, 30), simulated(rng, 3000)
    narrow = bootstrap_intervals(many, None, replicates=100)["AP"]
    wide = bootstrap_intervals(few, None, replicates=100)["AP"]
    assert (wide[1] - wide[0]) > 4 * (narrow[1] - narrow[0])
    # Ten times fewer places and parts than predictions and images: the score stays inside.
    assert narrow[0] < coco_metrics(many, None)["AP"] < narrow[1]
    assert bootstrap_intervals(few, None, replicates=100)["AP"] == wide
    assert bootstrap_intervals(few, None, replicates=100, seed=1)["AP"] != wide


def test_every_ap_has_its_interval_and_one_image_gives_none():
    coco, found = random_scene(np.random.default_rng(0), images=8, classes=2, most=20)
    matches = matches_of(coco, found, "bbox", 200)
    names = ["a", "b"]
    metrics = coco_metrics(matches, names, limit=200)
    intervals = bootstrap_intervals(matches, names, limit=200, replicates=50)
    assert intervals.keys() == {m for m, v in metrics.items() if m != "AR" and not np.isnan(v)}
    assert all(0 <= low <= high <= 100 for low, high in intervals.values())
    coco, found = random_scene(np.random.default_rng(0), images=1, classes=1, most=20)
    assert bootstrap_intervals(matches_of(coco, found, "bbox"), names[:1]) == {}
