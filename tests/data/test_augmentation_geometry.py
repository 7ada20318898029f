"""Where annotations go, against where the pixels go: every spatial transform of Albumentations."""

from __future__ import annotations

import inspect
import random

import albumentations as A
import cv2
import numpy as np
import pytest
import shapely
from detectron2.structures import BitMasks, polygons_to_bitmask
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from persondet.data.augmentation import (
    STRAIGHT_LINE_TRANSFORMS,
    build_augmentation,
    keeps_straight_lines,
)
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.data.shapes import transform_points
from persondet.errors import ConfigError
from tests.data.test_dataset_mapper import sample_record

WIDTH, HEIGHT = 131, 97
GREY = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)

# Every straight transform, in each of the modes that move points in their own way.
STRAIGHT = """
Affine: {scale: [0.5,2], rotate: [-180,180], shear: [-25,25], translate_percent: [-0.2,0.2], p: 1}
Affine: {scale: [0.4, 0.6], rotate: [-40, 40], fit_output: true, p: 1}
AtLeastOneBBoxRandomCrop: {height: 60, width: 90}
BBoxSafeRandomCrop: {erosion_rate: 0.3}
CenterCrop: {height: 150, width: 90, pad_if_needed: true}
Crop: {x_min: 13, y_min: 7, x_max: 120, y_max: 90}
CropAndPad: {percent: [-0.3, 0.1], sample_independently: true}
D4: {p: 1}
HorizontalFlip: {p: 1}
LongestMaxSize: {max_size: 90}
NoOp: {}
Pad: {padding: [3, 8, 11, 2]}
PadIfNeeded: {min_height: 156, min_width: 200, position: random}
Perspective: {scale: [0.05, 0.1], p: 1}
Perspective: {scale: [0.1, 0.2], fit_output: true, p: 1}
RandomCrop: {height: 80, width: 101}
RandomCropFromBorders: {}
RandomResizedCrop: {size: [70, 110], scale: [0.3, 1.0]}
RandomRotate90: {p: 1}
RandomScale: {scale_limit: [-0.5, 0.5], p: 1}
RandomSizedBBoxSafeCrop: {height: 70, width: 90}
RandomSizedCrop: {min_max_height: [50, 90], size: [70, 60], w2h_ratio: 0.7}
Resize: {height: 80, width: 60}
Rotate: {limit: [-45, 45], crop_border: true, p: 1}
SafeRotate: {limit: [-180, 180], p: 1}
ShiftScaleRotate: {p: 1}
SmallestMaxSize: {max_size: 140}
SquareSymmetry: {p: 1}
Transpose: {p: 1}
VerticalFlip: {p: 1}
""".strip().splitlines()

# What is needed besides the defaults.
ARGUMENTS = {
    "CropNonEmptyMaskIfExists": "{height: 60, width: 80}",
    "ElasticTransform": "{alpha: 40, sigma: 6, p: 1}",
    "GridDropout": "{ratio: 0.4, p: 1}",
    "ThinPlateSpline": "{scale_range: [0.1, 0.2], p: 1}",
}
# These stay out: bases, 3-D, other inputs than one image, wrong boxes.
REFUSED = {
    *("BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D"),
    *("CenterCrop3D", "CoarseDropout3D", "CubicSymmetry", "Pad3D", "PadIfNeeded3D"),
    *("GridElasticDeform", "MaskDropout", "Mosaic", "OverlayElements", "RandomCrop3D"),
    *("Morphological", "RandomCropNearBBox"),
}
SPATIAL = {n for n, k in inspect.getmembers(A, inspect.isclass) if issubclass(k, A.DualTransform)}
# Without functions, which YAML cannot name, Lambda does nothing.
BENDING = sorted(SPATIAL - STRAIGHT_LINE_TRANSFORMS - REFUSED - {"Lambda"})


def _build(tmp_path, *steps):
    path = tmp_path / "pipeline.yaml"
    path.write_text("\n".join(f"- {step}" for step in steps))
    return build_augmentation(str(path))


def _record(folder, *polygons, image=GREY):
    return sample_record(folder, image, *([polygon.reshape(-1).tolist()] for polygon in polygons))


def _seed(augmentation, seed):
    """As the mapper seeds it."""
    rng = np.random.default_rng(seed)
    augmentation.set_random_state(rng, random.Random(int(rng.integers(2**63))))


def _pixel_map(augmentation, seed, box):
    """Send an image whose pixels hold their own place through: float64, (H, W, 3).

    The result says of each pixel from where it came, x and y, and (third) how much of it came from
    the image at all: what interpolation and conventions do to pixels, without any point.
    """
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32) + 0.5
    places = np.dstack([columns, rows, np.ones_like(rows)]) / 256
    _seed(augmentation, seed)
    points = np.zeros((1, 2))
    result = augmentation(image=places, bboxes=box[None], instance_indices=[0], keypoints=points)
    return np.asarray(result["image"], np.float64) * 256


def _matrix_of(places):
    """The 3 x 3 matrix by which pixels moved, fitted to all that are wholly inside."""
    whole = (np.abs(places[..., 2] - 1) < 1e-3).astype(np.uint8)
    inside = cv2.erode(whole, np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
    if inside.sum() < 100:
        return None
    rows, columns = np.nonzero(inside)
    source, target = places[rows, columns, :2], np.stack([columns, rows], axis=1) + 0.5
    matrix, _ = cv2.findHomography(source, target)
    return np.asarray(matrix)


def test_every_straight_transform_is_tried():
    assert {step.split(":")[0] for step in STRAIGHT} == STRAIGHT_LINE_TRANSFORMS


@pytest.mark.parametrize("step", STRAIGHT)
def test_trap_12_points_follow_the_pixels_to_a_hundredth(tmp_path, step):
    polygon = np.array([[55.0, 40], [73, 42], [75, 58], [62, 52], [57, 60]])
    box = np.array([55.0, 40, 75, 60])
    augmentation = _build(tmp_path, step)
    mapper = AlbumentationsDatasetMapper(augmentation=augmentation, min_sizes=(0,))
    record = _record(tmp_path, polygon)
    for seed in range(12):
        matrix = _matrix_of(_pixel_map(augmentation, seed, box))
        instances = mapper(record, seed=seed)["instances"]
        if matrix is not None and len(instances):
            expected = transform_points(polygon, matrix)
            if expected.min() >= 0 and (expected <= instances.image_size[::-1]).all():
                found = instances.gt_masks.polygons[0][0].reshape(-1, 2)
                np.testing.assert_allclose(found, expected, atol=0.01)
                return
    pytest.fail("no seed keeps the polygon in the image")


# A crop of fixed size cannot follow one that leaves less.
CHAINED = [step for step in STRAIGHT if "Crop:" not in step or "pad" in step]


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pipeline=st.lists(st.sampled_from(CHAINED), min_size=1, max_size=3),
    centre=st.tuples(st.floats(35, 95), st.floats(30, 65)),
    radii=st.lists(st.floats(8, 30), min_size=5, max_size=11),  # as concave as they like
    seed=st.integers(0, 999),
    size=st.sampled_from([0, 70, 151]),
)
def test_chains_and_the_border_leave_what_geos_leaves(
    tmp_path, pipeline, centre, radii, seed, size
):
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    polygon = centre + np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])
    augmentation = _build(tmp_path, *pipeline)
    box = np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])
    places = _pixel_map(augmentation, seed, np.clip(box, 0, [WIDTH, HEIGHT] * 2))
    matrix = _matrix_of(places)
    assume(matrix is not None)
    mapper = AlbumentationsDatasetMapper(augmentation=augmentation, min_sizes=(size,), max_size=300)
    instances = mapper(_record(tmp_path, polygon), seed=seed)["instances"]
    height, width = instances.image_size
    scale = np.diag([width / places.shape[1], height / places.shape[0], 1.0])
    moved = shapely.Polygon(transform_points(polygon, scale @ matrix))
    expected = moved & shapely.box(0, 0, width, height)
    if len(instances) == 0:
        assert expected.area <= 2
        return
    parts = [shapely.Polygon(np.reshape(p, (-1, 2))) for p in instances.gt_masks.polygons[0]]
    assert (shapely.union_all(parts) ^ expected).area <= 0.05 * moved.length


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_trap_12_what_moves_neither_boxes_nor_points_is_refused_by_name(tmp_path, name):
    with pytest.raises(ConfigError, match=name):
        _build(tmp_path, f"{name}: {{p: 1}}")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "PiecewiseAffine" else ()) for n in BENDING],
)
def test_what_bends_lines_equals_albumentations_own_masks(tmp_path, name):
    augmentation = _build(tmp_path, f"{name}: {ARGUMENTS.get(name, '{p: 1}')}")
    assert not keeps_straight_lines(augmentation)
    people = np.array(
        [[[20.0, 10], [50, 15], [40, 60], [25, 50]], [[60, 30], [100, 40], [90, 80], [70, 60]]]
    )
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    record = _record(tmp_path, *people, image=noise)
    mapper = AlbumentationsDatasetMapper(augmentation=augmentation, min_sizes=(0,))
    sample = mapper(record, seed=5)
    # Their way: every polygon a mask, all of them through the pipeline.
    rasters = [polygons_to_bitmask([p.reshape(-1)], HEIGHT, WIDTH).astype(np.uint8) for p in people]
    boxes = np.hstack([people.min(axis=1), people.max(axis=1)])
    _seed(augmentation, 5)
    indices = np.arange(2)
    theirs = augmentation(image=noise, bboxes=boxes, instance_indices=indices, masks=rasters)
    np.testing.assert_array_equal(sample["image"].numpy()[::-1].transpose(1, 2, 0), theirs["image"])
    masks = sample["instances"].gt_masks
    assert isinstance(masks, BitMasks)
    for number, mask in zip(sample["instances"].gt_classes.tolist(), masks.tensor, strict=True):
        np.testing.assert_array_equal(mask.numpy(), theirs["masks"][number].astype(bool))
    # RandomGridShuffle gives a box for each piece of a person.
    kept = set(theirs["instance_indices"].astype(int).tolist())
    assert len(masks) == sum(theirs["masks"][index].any() for index in kept)
    # An image without people goes the same way.
    assert len(mapper({**record, "annotations": []}, seed=5)["instances"]) == 0
