"""Where annotations go, against where the pixels go: every spatial transform of Albumentations."""

from __future__ import annotations

import inspect
import random
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pytest
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
ZOOM = 4

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
    *(
        "Morphological",
        "RandomCropNearBBox",
    ),
}


def _spatial() -> list[str]:
    kinds = ((name, getattr(A, name)) for name in dir(A))
    return sorted(n for n, k in kinds if inspect.isclass(k) and issubclass(k, A.DualTransform))


# Without functions, which YAML cannot name, Lambda does nothing.
BENDING = [n for n in _spatial() if n not in STRAIGHT_LINE_TRANSFORMS | REFUSED | {"Lambda"}]


def _build(tmp_path: Path, *steps: str) -> A.Compose:
    path = tmp_path / "pipeline.yaml"
    path.write_text("\n".join(f"- {step}" for step in steps))
    built = build_augmentation(str(path))
    assert built is not None
    return built


def _record(path: Path, *polygons: np.ndarray, image: np.ndarray | None = None) -> dict[str, Any]:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8) if image is None else image
    return sample_record(path, image, *([polygon.reshape(-1).tolist()] for polygon in polygons))


def _seed(augmentation: A.Compose, seed: int) -> None:
    """As the mapper seeds it."""
    rng = np.random.default_rng(seed)
    augmentation.set_random_state(rng, random.Random(int(rng.integers(2**63))))


def _pixel_map(augmentation: A.Compose, seed: int, box: np.ndarray) -> np.ndarray:
    """Send an image whose pixels hold their own place through: float64, (H, W, 3).

    The result says of each pixel from where it came, x and y, and (third) how much of it came from
    the image at all: what interpolation and conventions do to pixels, without any point.
    """
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32) + 0.5
    places = np.dstack([columns, rows, np.ones_like(rows)]) / 256
    _seed(augmentation, seed)
    points: dict[str, Any] = {}
    if keeps_straight_lines(augmentation):
        points["keypoints"] = np.zeros((1, 2))
    result = augmentation(image=places, bboxes=box[None], instance_indices=[0], **points)
    return np.asarray(result["image"], np.float64) * 256


def _matrix_of(places: np.ndarray) -> np.ndarray | None:
    """The 3 x 3 matrix by which pixels moved, fitted to all that are wholly inside."""
    whole = (np.abs(places[..., 2] - 1) < 1e-3).astype(np.uint8)
    inside = cv2.erode(whole, np.ones((5, 5), np.uint8), borderValue=0).astype(bool)
    if inside.sum() < 100:
        return None
    rows, columns = np.nonzero(inside)
    source, target = places[rows, columns, :2], np.stack([columns, rows], axis=1) + 0.5
    matrix, _ = cv2.findHomography(source, target)
    return np.asarray(matrix)


def test_every_straight_transform_is_tried() -> None:
    assert {step.split(":")[0] for step in STRAIGHT} == STRAIGHT_LINE_TRANSFORMS


@pytest.mark.parametrize("step", STRAIGHT)
def test_trap_12_points_follow_the_pixels_to_a_hundredth(tmp_path: Path, step: str) -> None:
    polygon = np.array([[55.0, 40], [73, 42], [75, 58], [62, 52], [57, 60]])
    box = np.array([55.0, 40, 75, 60])
    augmentation = _build(tmp_path, step)
    mapper = AlbumentationsDatasetMapper(augmentation=augmentation, min_sizes=(0,))
    record = _record(tmp_path / "a.png", polygon)
    for seed in range(12):
        matrix = _matrix_of(_pixel_map(augmentation, seed, box))
        instances = mapper(record, seed=seed)["instances"]
        if matrix is None or not len(instances):
            continue
        expected = transform_points(polygon, matrix)
        height, width = instances.image_size
        if expected.min() < 0 or (expected.max(axis=0) > (width, height)).any():
            continue
        found = instances.gt_masks.polygons[0][0].reshape(-1, 2)
        np.testing.assert_allclose(found, expected, atol=0.01)
        return
    pytest.fail("no seed keeps the polygon in the image")


def _boundary_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest distance from the boundary of one mask to that of the other, in its pixels."""

    def distances(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask = mask.astype(np.uint8)
        edge = mask - cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0)
        return edge.astype(bool), cv2.distanceTransform(1 - edge, cv2.DIST_L2, 5)

    (edge, to_edge), (other_edge, to_other) = distances(first), distances(second)
    return float(max(to_other[edge].max(initial=0), to_edge[other_edge].max(initial=0)))


steps = st.lists(
    st.one_of(
        st.sampled_from(["HorizontalFlip: {p: 1}", "VerticalFlip: {p: 1}", "Transpose: {p: 1}"]),
        st.builds(
            "Affine: {{scale: {}, rotate: {}, shear: {{x: {}, y: {}}}, p: 1}}".format,
            *(st.floats(0.6, 1.7), st.floats(-60, 60), st.floats(-15, 15), st.floats(-15, 15)),
        ),
        st.builds("Perspective: {{scale: {}, p: 1}}".format, st.floats(0.02, 0.15)),
        st.builds(
            "Crop: {{x_min: {}, y_min: {}, x_max: {}, y_max: {}, pad_if_needed: true}}".format,
            *(st.integers(0, 40), st.integers(0, 30), st.integers(70, WIDTH), st.integers(60, 97)),
        ),
        st.builds("RandomResizedCrop: {{size: [{0}, {0}]}}".format, st.integers(60, 120)),
    ),
    min_size=1,
    max_size=3,
)
shapes = st.tuples(
    *(st.floats(35, 95), st.floats(30, 65)),
    st.lists(st.floats(8, 30), min_size=5, max_size=11),  # radii: as concave as they like
)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pipeline=steps, shape=shapes, seed=st.integers(0, 999), size=st.sampled_from([0, 70, 151]))
def test_the_boundary_lies_within_a_pixel_of_a_finer_truth(
    tmp_path: Path, pipeline: list[str], shape: Any, seed: int, size: int
) -> None:
    x, y, radii = shape
    angles = np.arange(len(radii)) * 2 * np.pi / len(radii)
    polygon = np.array([x, y]) + np.array(radii)[:, None] * np.stack(
        [np.cos(angles), np.sin(angles)], axis=1
    )
    augmentation = _build(tmp_path, *pipeline)
    box = np.concatenate([polygon.min(axis=0), polygon.max(axis=0)])
    places = _pixel_map(augmentation, seed, np.clip(box, 0, [WIDTH, HEIGHT] * 2))
    matrix = _matrix_of(places)
    assume(matrix is not None)
    mapper = AlbumentationsDatasetMapper(
        augmentation=augmentation, min_sizes=(size,), max_size=300, mask_format="polygon"
    )
    instances = mapper(_record(tmp_path / "a.png", polygon), seed=seed)["instances"]
    height, width = instances.image_size
    scale = np.diag([width / places.shape[1], height / places.shape[0], 1.0])
    # The mask is warped in pixels of a quarter, whose centres lie at (n + 0.5) / 4.
    finer = np.array([[ZOOM, 0, -0.5], [0, ZOOM, -0.5], [0, 0, 1.0]])
    fine = polygons_to_bitmask([polygon.reshape(-1) * ZOOM], HEIGHT * ZOOM, WIDTH * ZOOM)
    warp = finer @ scale @ matrix @ np.linalg.inv(finer)
    expected = cv2.warpPerspective(fine.astype(np.float32), warp, (width * ZOOM, height * ZOOM))
    if len(instances) == 0:
        assert (expected >= 0.5).sum() <= 2 * ZOOM**2
        return
    parts = instances.gt_masks.polygons[0]
    found = polygons_to_bitmask([part * ZOOM for part in parts], height * ZOOM, width * ZOOM)
    assert _boundary_distance(found, expected >= 0.5) <= ZOOM


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_trap_12_what_moves_neither_boxes_nor_points_is_refused_by_name(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=name):
        _build(tmp_path, f"{name}: {{p: 1}}")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "PiecewiseAffine" else ()) for n in BENDING],
)
def test_what_bends_lines_equals_albumentations_own_masks(tmp_path: Path, name: str) -> None:
    augmentation = _build(tmp_path, f"{name}: {ARGUMENTS.get(name, '{p: 1}')}")
    assert not keeps_straight_lines(augmentation)
    people = [
        np.array([[20.0, 10], [50, 15], [40, 60], [25, 50]]),
        np.array([[60.0, 30], [100, 40], [90, 80], [70, 60]]),
    ]
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    record = _record(tmp_path / "a.png", *people, image=noise)
    mapper = AlbumentationsDatasetMapper(augmentation=augmentation, min_sizes=(0,))
    sample = mapper(record, seed=5)
    # Their way: every polygon a mask, all of them through the pipeline.
    rasters = [polygons_to_bitmask([p.reshape(-1)], HEIGHT, WIDTH).astype(np.uint8) for p in people]
    boxes = np.array([[*p.min(axis=0), *p.max(axis=0)] for p in people])
    _seed(augmentation, 5)
    theirs = augmentation(
        image=noise,
        bboxes=boxes,
        instance_indices=np.arange(2),
        masks=rasters,
    )
    np.testing.assert_array_equal(sample["image"].numpy()[::-1].transpose(1, 2, 0), theirs["image"])
    masks = sample["instances"].gt_masks
    assert isinstance(masks, BitMasks)
    for number, mask in zip(sample["instances"].gt_classes.tolist(), masks.tensor, strict=True):
        np.testing.assert_array_equal(mask.numpy(), theirs["masks"][number].astype(bool))
    assert len(masks) == sum(
        bool(theirs["masks"][index].any())
        # RandomGridShuffle gives a box for each piece of a person.
        for index in set(theirs["instance_indices"].astype(int).tolist())
    )
    # An image without people goes the same way.
    assert len(mapper({**record, "annotations": []}, seed=5)["instances"]) == 0
