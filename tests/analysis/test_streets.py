"""Three drawn streets: exact counts from the ground truth at every rate, and from worse records."""

import bm_counts
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from persondet.analysis.clip import analyze_clip
from persondet.inference.tracking import PersonTracker
from persondet.records import PersonRecord

RATES = (2, 5, 12, 25, 60)


def moments(rate, seconds):
    if rate == "variable":
        times = np.cumsum(np.random.default_rng(3).uniform(0.01, 0.12, int(seconds / 0.065)))
        return times[times < seconds].tolist()
    times = np.arange(0, seconds, 1 / 25 if rate == "stride 3" else 1 / rate).tolist()
    return times[::3] if rate == "stride 3" else times


@pytest.mark.slow
@pytest.mark.parametrize("street", bm_counts.STREETS, ids=lambda street: street.name)
@pytest.mark.parametrize("rate", [*RATES, "stride 3", "variable"])
def test_counts_are_exact_and_dwell_times_within_a_frame(street, rate, tmp_path):
    scene, times = bm_counts.drawn(street), moments(rate, street.seconds)
    records = bm_counts.write_records(tmp_path / "r.jsonl", times, scene.upright)
    found = analyze_clip(records, scene.write_areas(tmp_path / "areas.yaml"))
    counted = zip(found.areas.lines, found.crossings, strict=True)
    assert {line.name: crossed.counts for line, crossed in counted} == street.counts
    for zone, visits in zip(found.areas.zones, found.visits, strict=True):
        true = scene.dwell(zone.name)
        assert sorted(visits.tracks) == sorted(number for number, _, _ in true)
        expected = [leave - enter for _, enter, leave in true]
        assert visits.dwell == pytest.approx(expected, abs=float(np.diff(times).max()) + 0.002)


@pytest.mark.soak
@pytest.mark.parametrize("street", bm_counts.STREETS, ids=lambda street: street.name)
def test_counts_are_exact_from_what_is_seen_of_people(street, tmp_path):
    scene, times = bm_counts.drawn(street), np.arange(0, street.seconds, 0.08).tolist()
    records = bm_counts.write_records(tmp_path / "r.jsonl", times, scene.visible)
    found = analyze_clip(records, scene.write_areas(tmp_path / "areas.yaml"))
    counted = zip(found.areas.lines, found.crossings, strict=True)
    assert {line.name: crossed.counts for line, crossed in counted} == street.counts


def degraded(people, rng, rate):
    """Drop a fifth of the boxes, let the others tremble, add five false alarms a second."""
    number = [1000]

    def seen(time):
        for person in people(time):
            if rng.random() >= 0.2:
                box = tuple((np.array(person.box) + rng.normal(0, 2, 4)).tolist())
                yield PersonRecord(box, 0.9, "person", None, person.track_id)
        for _ in range(rng.poisson(5 / rate)):
            number[0] += 1
            x, y, tall = rng.uniform([0, 200, 60], [1280, 600, 250]).tolist()
            box = (x, y - tall, x + 0.4 * tall, y)
            yield PersonRecord(box, 0.6, "person", None, number[0])

    return seen


@pytest.mark.soak
@pytest.mark.parametrize("rate", [10, 25])
def test_tracks_of_worse_boxes_change_less_than_a_twentieth_of_the_counts(rate, tmp_path):
    """The boxes lose their numbers, and the tracker gives them others."""
    true = wrong = 0
    for seed in range(3):
        for street in bm_counts.STREETS:
            scene, rng = bm_counts.drawn(street), np.random.default_rng(seed)
            people = degraded(scene.upright, rng, rate)
            tracker = PersonTracker(rate)

            def tracked(time, people=people, tracker=tracker):
                seen = list(people(time))
                found = Instances(bm_counts.SIZE[::-1])
                found.pred_boxes = Boxes(torch.tensor([p.box for p in seen]).reshape(-1, 4))
                found.scores = torch.tensor([p.score for p in seen])
                tracker.update(found, time)
                for person, number in zip(seen, found.ID, strict=True):
                    yield PersonRecord(person.box, person.score, "person", None, number)

            times = moments(rate, street.seconds)
            records = bm_counts.write_records(tmp_path / "r.jsonl", times, tracked)
            found = analyze_clip(records, scene.write_areas(tmp_path / "areas.yaml"))
            (expected,) = street.counts.values()
            true += sum(expected)
            wrong += sum(abs(np.subtract(expected, found.crossings[0].counts)))
    assert wrong <= 0.05 * true


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_worse_records_change_less_than_a_twentieth_of_the_counts(rate, tmp_path):
    true = wrong = stock_wrong = 0
    for seed, street in enumerate(bm_counts.STREETS):
        scene, rng = bm_counts.drawn(street), np.random.default_rng(seed)
        people = degraded(scene.upright, rng, rate)
        path = tmp_path / "r.jsonl"
        records = bm_counts.write_records(path, moments(rate, street.seconds), people)
        found = analyze_clip(records, scene.write_areas(tmp_path / "areas.yaml"))
        for expected, crossed in zip(street.counts.values(), found.crossings, strict=True):
            true += sum(expected)
            wrong += sum(abs(np.subtract(expected, crossed.counts)))
        for expected, stock in zip(street.counts.values(), found.stock, strict=True):
            stock_wrong += sum(abs(np.subtract(expected, stock)))
    assert wrong <= 0.05 * true
    assert stock_wrong > 0.2 * true
