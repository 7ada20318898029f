"""The bootstrap: exact for the draw that it is, and wide enough for the truth."""

from dataclasses import replace

import numpy as np
import pytest

from persondet.evaluation.intervals import average_precisions, bootstrap_intervals, interval_notes
from persondet.evaluation.matching import IOU_THRESHOLDS, Matches
from persondet.evaluation.metrics import coco_metrics, rankings
from tests.evaluation.scenes import matches_of, plain_metrics, random_scene, scene


@pytest.mark.parametrize("task", ["bbox", "segm"])
def test_a_draw_scores_as_pycocotools_says_of_a_dataset_with_those_images(task):
    rng = np.random.default_rng(1)
    coco, found = random_scene(rng, images=6, classes=1, most=8)
    # Of equal scores, the order is the image's in the draw, and the copies' in the dataset.
    for record, score in zip(found, rng.permutation(len(found)) + 1, strict=True):
        record["score"] = float(score) / 100
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=3).astype(np.float32)
    expected = [plain_metrics(*_drawn(coco, found, one.astype(int)), task) for one in weights]
    matches = matches_of(coco, found, task)
    for area, metric in enumerate(("AP", "APs", "APm", "APl")):
        ranking = rankings(matches, area, 100)[0]
        ours = average_precisions(ranking, np.arange(6), weights).mean(axis=0) * 100
        theirs = [draw[metric] for draw in expected]
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def _drawn(coco, found, counts):
    """Return a dataset in which image `i` (by rising id) stands `counts[i]` times."""
    ids = np.repeat(sorted(image["id"] for image in coco["images"]), counts)
    rows = (
        [[r for r in them if r["image_id"] == n] for n in ids]
        for them in (coco["annotations"], found)
    )
    return scene(*rows, size=(50, 40))


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
        image += [number] * len(level)
        scores += rng.beta(np.where(level > 0, 4, 1.5), np.where(level > 0, 2, 3)).tolist()
        levels += level.tolist()
    zeros = np.zeros(len(image), np.int32)
    bits = ((1 << np.array(levels, np.int64)) - 1).astype(np.uint16)
    return Matches(
        **dict.fromkeys(("ground_truth", "near", "near_iou"), None),  # for the images' own views
        **dict.fromkeys(("category", "rank", "source", "partner"), zeros),
        image=np.array(image, np.int32),
        scores=np.array(scores),
        matched=np.stack([bits] * 4),
        ignored=np.zeros((4, len(image)), np.uint16),
        objects=np.array([[people], *[[[0] * images]] * 3], np.int32),  # no sizes
    )


@pytest.mark.slow
def test_the_interval_covers_the_truth_in_at_least_90_of_100_cases():
    rng, cases = np.random.default_rng(0), 150
    truth = coco_metrics(simulated(rng, 20_000), None)
    inside = dict.fromkeys(("AP", "AP50", "AP75"), 0)
    for _ in range(cases):
        intervals = bootstrap_intervals(simulated(rng, 20), None, replicates=250)
        for metric in inside:
            low, high = intervals[metric]
            inside[metric] += low <= truth[metric] <= high
    assert min(inside.values()) >= 0.9 * cases


@pytest.mark.parametrize("count", [1, 7, 8])
def test_too_few_images_with_people_give_no_interval_and_a_note(count):
    rare = simulated(np.random.default_rng(3), count)
    rare.image[:] *= 5  # four empty images between any two
    people = np.zeros((4, 1, 60), np.int32)
    people[..., : 5 * count : 5] = rare.objects
    rare = replace(rare, objects=people)
    assert coco_metrics(rare, ["person"])["AP"] > 0
    known = bootstrap_intervals(rare, ["person"], limit=200)
    assert known.keys() == {"AP", "AP50", "AP75", "AP@200", "AP-person"}
    assert [bool(interval) for interval in known.values()] == [count > 7] * 5
    (note,) = interval_notes(rare, ["person"], limit=200)
    assert f"only {count} image" in note
    assert ("no interval for AP, AP50, AP75, AP@200, AP-person:" in note) == (count < 8)


def test_many_classes_give_one_line_and_an_absent_class_a_line_beside_the_ap():
    objects = np.zeros((4, 6, 60), np.int32)
    objects[:, :5, :3] = np.tril(np.ones((5, 3), np.int32))  # shown by 1, 2, 3, 3 and 3 images
    names = [f"class {number}" for number in range(6)]
    one = simulated(np.random.default_rng(3), 20)
    notes = interval_notes(replace(one, objects=objects), names)
    assert len(notes) == 2 and notes[0].startswith("no interval for AP, ")
    assert notes[0].endswith("fewer images show each than 8.")
    assert notes[1] == "no AP for class 5: no object of it is in this split."
