"""Who is who after an absence: known people, and links that cannot be."""

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from persondet.inference.relinking import Relinker

LOOKS = np.random.default_rng(0).normal(0, 1, (6, 12))
RATE = 10


def frames(rows, noise=0.1):
    """Yield (instances, time) of rows (track, look, first second, last second, x)."""
    rng = np.random.default_rng(1)
    for n in range(round(RATE * max(row[3] for row in rows)) + 1):
        here = [row for row in rows if row[2] <= n / RATE <= row[3]]
        found = Instances((300, 900), ID=[row[0] for row in here])
        boxes = [[row[4], 100, row[4] + 40, 200] for row in here]
        found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        looks = np.array([LOOKS[row[1]] for row in here]).reshape(-1, 12)
        found.appearance = torch.from_numpy(looks + rng.normal(0, noise, looks.shape))
        yield found, n / RATE


def numbers(rows, **choices):
    links = Relinker()
    for found, time in frames(rows, **choices):
        links.add(found, time)
    return links.numbers()


def test_people_who_come_back_have_their_number_and_others_their_own():
    rows = [
        *[(1, 0, 0, 4, 0), (2, 1, 1, 5, 300), (3, 2, 0, 20, 600)],
        *[(4, 1, 9, 12, 350), (5, 0, 10, 14, 100), (6, 3, 8, 12, 500)],
        *[(7, 0, 17, 20, 100), (8, 4, 16, 20, 0)],
    ]
    assert numbers(rows) == {1: 1, 2: 2, 3: 3, 4: 2, 5: 1, 6: 6, 7: 1, 8: 8}


def test_the_assignment_is_the_best_for_all_together():
    # Two who look alike: the nearer pairs go together, though one of them could take either.
    LOOKS[5] = LOOKS[0] + 0.05
    rows = [(1, 0, 0, 4, 0), (2, 5, 0, 4, 300), (3, 2, 0, 20, 600)]
    rows += [(4, 5, 10, 14, 300), (5, 0, 10, 14, 0)]
    assert numbers(rows, noise=0.02) == {1: 1, 2: 2, 3: 3, 4: 2, 5: 1}


def test_nobody_is_in_two_places_or_faster_than_people_are():
    other = (9, 2, 0, 20, 600)
    assert numbers([other, (1, 0, 0, 4, 0), (2, 0, 4, 8, 0)])[2] == 2  # both in one frame
    assert numbers([other, (1, 0, 0, 4, 0), (2, 0, 4.2, 8, 850)])[2] == 2
    assert numbers([other, (1, 0, 0, 4, 0), (2, 0, 4.2, 8, 50)])[2] == 1
    assert numbers([(9, 2, 0, 80, 600), (1, 0, 0, 4, 0), (2, 0, 70, 75, 0)])[2] == 2  # too long


def test_without_two_people_at_once_the_spread_of_one_tells():
    rows = [(1, 0, 0, 4, 0), (2, 1, 6, 8, 0), (3, 0, 10, 12, 0)]
    assert numbers(rows) == {1: 1, 2: 2, 3: 1}
    assert Relinker().numbers() == {}


def test_a_detection_without_a_place_belongs_to_nobody():
    links = Relinker()
    for found, time in frames([(1, 0, 0, 4, 0), (2, 1, 0, 4, 300)]):
        found.pred_boxes.tensor[0] = float("nan")
        links.add(found, time)
    assert links.numbers() == {2: 2}
