"""The bootstrap: exact for the draw that it is, and wide enough for the truth."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from persondet.evaluation.intervals import (
    LEAST_IMAGES,
    average_precisions,
    bootstrap_intervals,
    interval_notes,
)
from persondet.evaluation.matching import IOU_THRESHOLDS, Matches
from persondet.evaluation.metrics import coco_metrics, rankings
from tests.evaluation.coco_scenes import matches_of, plain_metrics, random_scene


@pytest.mark.parametrize("seed", range(3))
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


def simulated(rng, images):
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
    return scores_alone(
        image=np.array(image, np.int32),
        category=np.zeros(count, np.int32),
        rank=np.zeros(count, np.int32),
        scores=np.array(scores),
        matched=np.stack([bits] * 4),
        ignored=np.zeros((4, count), np.uint16),
        objects=np.array([[people], *[[[0] * images]] * 3], np.int32),  # no sizes
    )


def scores_alone(**arrays):
    """Matches without what only the images' own views need."""
    return Matches(
        ground_truth=None,
        source=arrays["rank"],
        partner=np.zeros((2, len(arrays["rank"])), np.int32),
        near=np.zeros((2, 0), np.int32),
        near_iou=np.zeros(0),
        **arrays,
    )


def coverage(images, cases):
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


def spread_over(rng, has, images):
    """Return matches of `images` images of which only those in `has` show anybody."""
    few = simulated(rng, len(has))
    people = np.zeros((4, 1, images), np.int32)
    people[0, 0, has] = few.objects[0, 0]
    return replace(few, image=has[few.image].astype(np.int32), objects=people)


@pytest.mark.parametrize("count", [1, 4, LEAST_IMAGES - 1])
def test_too_few_images_with_people_give_no_interval_and_a_note(count):
    rng = np.random.default_rng(3)
    has = np.sort(rng.choice(60, count, replace=False))
    rare = spread_over(rng, has, 60)
    assert coco_metrics(rare, ["person"])["AP"] > 0
    found = bootstrap_intervals(rare, ["person"], limit=200)
    assert found == dict.fromkeys(["AP", "AP50", "AP75", "AP@200", "AP-person"])
    shows = "image shows" if count == 1 else "images show"
    assert interval_notes(rare, ["person"], limit=200) == [
        f"no interval for AP, AP50, AP75, AP@200, AP-person: only {count} {shows} an object, "
        "and it takes 8."
    ]
