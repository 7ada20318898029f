import cv2
import numpy as np
import pytest

from persondet.data.leaks import verification
from persondet.data.leaks.hashing import image_signature
from persondet.data.leaks.verification import near_identical_pairs, same_image
from tests.data.leaks.scenes import COPIES, grey, jpeg, light, octagons, scene


def signatures(images):
    hashes, thumbnails = zip(*(image_signature(grey(image)) for image in images), strict=True)
    return np.stack(hashes), np.stack(thumbnails)


def same(one, other):
    first, second = signatures([one, other])[1]
    assert same_image(first, second) == same_image(second, first)
    return same_image(first, second)


def swimmers(rng):
    """A scene (224, 400, 3) of little structure: shades, noise and a few small boxes."""
    shades = cv2.resize(rng.normal(0, 8, (6, 8, 3)), (400, 224), interpolation=cv2.INTER_CUBIC)
    pixels = shades + rng.normal(0, 6, (224, 400, 1)) + rng.uniform(60, 140, 3)
    for x, y in rng.integers((10, 10), (380, 200), (4, 2)).tolist():
        cv2.rectangle(pixels, (x, y), (x + 8, y + 10), rng.uniform(0, 255, 3).tolist(), -1)
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("copy", COPIES)
def test_planted_copies_are_found(copy):
    rng = np.random.default_rng(7)
    originals = [scene(rng) for _ in range(10)]
    images = originals + [COPIES[copy](image) for image in originals]
    pairs, skipped = near_identical_pairs(*signatures(images), groups=np.repeat([0, 1], 10))
    assert all(other == one + 10 for one, other in pairs.tolist())
    assert len(pairs) >= 9 and skipped == 0


@pytest.mark.parametrize(("make", "bar"), [(scene, 255), (octagons, None), (swimmers, 0)])
def test_independent_images_raise_no_alarm_with_bars_or_without(make, bar):
    rng = np.random.default_rng(11)
    images = [make(rng) for _ in range(30)]
    if bar is not None:
        rows = ((60, 60), (0, 0), (0, 0))
        images = [np.pad(image, rows, constant_values=bar) for image in images]
    pairs, _ = near_identical_pairs(*signatures([jpeg(image, 90) for image in images]))
    assert len(pairs) == 0


def test_a_letterboxed_copy_is_found():
    images = [swimmers(np.random.default_rng(seed)) for seed in range(10)]
    boxed = [jpeg(np.pad(image, ((88, 88), (0, 0), (0, 0))), 90) for image in images]
    pairs, _ = near_identical_pairs(*signatures(images + boxed))
    assert pairs.tolist() == [[k, k + 10] for k in range(10)]


def test_the_same_street_with_another_person_is_another_image():
    street = scene(np.random.default_rng(2), (320, 240))
    here, there = street.copy(), street.copy()
    cv2.ellipse(here, (80, 120), (5, 11), 0, 0, 360, (250, 250, 250), -1)
    cv2.ellipse(there, (230, 120), (5, 11), 0, 0, 360, (250, 250, 250), -1)
    assert same(here, jpeg(here, 40))
    assert not same(here, there)
    assert not same(light(here, 0.7, 10), there)


def test_the_same_people_on_other_noise_are_another_image():
    rng = np.random.default_rng(3)
    people = octagons(rng)
    here, there = (
        np.where(people > 120, people, rng.integers(60, 90, people.shape, dtype=np.uint8))
        for _ in range(2)
    )
    assert same(here, jpeg(here, 40))
    assert not same(here, there)


def test_plain_images_gradients_and_horizons_are_the_same_as_nothing():
    down, right = np.mgrid[:120, :160]
    for pixels in (down * 0 + 90, right + down / 2, np.where(down < 50, 200, 60)):
        image = np.repeat(pixels.astype(np.uint8)[..., None], 3, axis=2)
        assert not same(image, image)
        assert len(near_identical_pairs(*signatures([image] * 3))[0]) == 0


@pytest.mark.parametrize("groups", [None, 3])
def test_many_copies_do_not_make_many_pairs(groups):
    count = 60
    hashes, thumbnails = signatures([scene(np.random.default_rng(8))])
    labels = None if groups is None else np.arange(count) % groups
    many = [np.repeat(one, count, axis=0) for one in (hashes, thumbnails)]
    pairs, _ = near_identical_pairs(*many, groups=labels)
    assert count - 1 <= len(pairs) <= count * (1 if groups is None else groups - 1)
    assert len(np.unique(pairs)) == count


def test_each_member_has_a_partner_in_each_other_group():
    rng = np.random.default_rng(9)
    images = [image for _ in range(4) for image in [scene(rng)] * 3]
    groups = np.array([0, 0, 1, 2, 1, 0, 1, 1, 1, 0, 2, 2])
    pairs, _ = near_identical_pairs(*signatures(images), groups=groups)
    found = {(a, groups[b]) for p in pairs.tolist() for a, b in (p, p[::-1])}
    every = [(a, b) for a in range(12) for b in range(12) if a // 3 == b // 3]
    assert found == {(a, groups[b]) for a, b in every if groups[a] != groups[b]}


def test_a_crowd_of_look_alikes_spends_the_budget_and_that_is_said(monkeypatch, caplog):
    street = signatures([scene(np.random.default_rng(5))])[1]
    frames = np.repeat(street, 60, axis=0)  # a fixed camera, and somebody else in each frame
    for index, frame in enumerate(frames):
        frame[index % 8 * 8 :, index // 8 * 8 :][:8, :8] ^= 255
    monkeypatch.setattr(verification, "_BLOCK", 600)
    _, skipped = near_identical_pairs(np.zeros((60, 8), np.uint64), frames, budget=15_000_000)
    assert 0 < skipped < 60
    assert "may not have been found" in caplog.text
