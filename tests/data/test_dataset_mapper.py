"""Training samples: pixels, boxes and masks in step, against rasters and stock Detectron2."""

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks, BoxMode, PolygonMasks, polygons_to_bitmask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persondet.config import get_cfg as persondet_cfg
from persondet.data.augmentation import build_augmentation
from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
from persondet.errors import DatasetError

WIDTH, HEIGHT = 96, 64
GREY = np.full((HEIGHT, WIDTH, 3), 100, np.uint8)


def _mapper(tmp_path, pipeline="", **options):
    """A mapper of `pipeline` (YAML text) that leaves the size alone unless told."""
    path = tmp_path / "pipeline.yaml"
    path.write_text(pipeline)
    visibility = options.get("min_visibility", 0.0)
    augmentation = build_augmentation(str(path), min_visibility=visibility)
    return AlbumentationsDatasetMapper(
        augmentation=augmentation, **({"min_sizes": (0,), "use_masks": True} | options)
    )


def sample_record(folder, image, *segmentations):
    """Write `image` (RGB) losslessly, and describe it; boxes are the extents of the polygons."""
    cv2.imwrite(str(folder / "a.png"), image[:, :, ::-1])
    annotations = []
    for number, segmentation in enumerate(segmentations):
        if isinstance(segmentation, dict):
            box, mode = mask_util.toBbox(segmentation).tolist(), BoxMode.XYWH_ABS
        else:
            points = np.concatenate([np.reshape(part, (-1, 2)) for part in segmentation])
            box, mode = [*points.min(axis=0), *points.max(axis=0)], BoxMode.XYXY_ABS
        known = {"bbox": box, "bbox_mode": mode, "category_id": number, "iscrowd": 0}
        annotations.append(known | {"segmentation": segmentation})
    size = dict(zip(("height", "width"), image.shape[:2], strict=True))
    return {"file_name": str(folder / "a.png"), **size, "image_id": 3, "annotations": annotations}


def _rectangle(x0, y0, x1, y1):
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def _raster(outline):
    return polygons_to_bitmask(outline, HEIGHT, WIDTH)


def _bits(sample):
    """The masks of a sample as (N, H, W) bool."""
    masks = sample["instances"].gt_masks
    if isinstance(masks, BitMasks):
        return masks.tensor.numpy()
    size = sample["instances"].image_size
    return np.array([polygons_to_bitmask(parts, *size) for parts in masks.polygons])


@pytest.mark.parametrize("pipeline", ["", "- HorizontalFlip: {p: 1}"])
@pytest.mark.parametrize(("order", "channel"), [("BGR", 0), ("RGB", 2)])
def test_trap_12_a_blue_image_stays_blue(tmp_path, pipeline, order, channel):
    record = sample_record(tmp_path, GREY * 0 + np.array([0, 0, 255], np.uint8))
    image = _mapper(tmp_path, pipeline, image_format=order)(record, seed=0)["image"]
    assert image.dtype == torch.uint8
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image.is_contiguous()
    assert (image[channel] == 255).all()
    assert image.sum() == 255 * HEIGHT * WIDTH


def test_trap_12_colour_transforms_see_rgb(tmp_path):
    # A sepia tone adds red and takes blue; on BGR it would be the other way round.
    sample = _mapper(tmp_path, "- ToSepia: {p: 1}")(sample_record(tmp_path, GREY), seed=0)
    blue, _, red = sample["image"].float().mean(dim=(1, 2))
    assert red > blue + 20


@pytest.mark.parametrize(
    ("masks", "mask_format"), [(True, "polygon"), (True, "bitmask"), (False, "polygon")]
)
def test_without_augmentation_it_equals_detectron2s_mapper(tmp_path, masks, mask_format):
    cfg = get_cfg()
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (80,), 100
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MASK_FORMAT = mask_format
    cfg.MODEL.MASK_ON = masks
    image = np.random.default_rng(0).integers(0, 255, GREY.shape, dtype=np.uint8)
    triangle = [[5.5, 7.25, 40.0, 10.0, 20.0, 50.0]]
    record = sample_record(tmp_path, image, triangle, _rectangle(30, 2, 60.5, 33))
    stock = DatasetMapper(cfg, True)(record)
    before = repr(record)
    ours = AlbumentationsDatasetMapper(
        min_sizes=(80,), max_size=100, use_masks=masks, mask_format=mask_format
    )(record)
    assert repr(record) == before
    # The resize of training has fewer bits: single levels, here and there.
    difference = (ours["image"].int() - stock["image"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.02  # of noise; of photographs a tenth of it
    expected, found = stock["instances"], ours["instances"]
    assert found.image_size == expected.image_size
    assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    assert torch.equal(found.gt_classes, expected.gt_classes)
    assert found.has("gt_masks") == masks
    if masks:
        assert type(found.gt_masks) is type(expected.gt_masks)
        np.testing.assert_array_equal(_bits(ours), _bits(stock))
    test_time = DatasetMapper(cfg, False)(record)  # both at their defaults of 800 and 1333
    bare = AlbumentationsDatasetMapper(with_annotations=False, exact_pixels=True)(record)
    assert torch.equal(bare["image"], test_time["image"])
    assert set(bare) == set(test_time)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    *(st.integers(0, WIDTH - 8), st.integers(0, HEIGHT - 8), st.integers(2, 8), st.integers(2, 8)),
    st.sampled_from(["HorizontalFlip", "VerticalFlip", "Transpose"]),
)
def test_trap_12_a_flipped_small_polygon_equals_the_flipped_raster(tmp_path, x, y, w, h, name):
    outline = _rectangle(x, y, x + w, y + h)
    record = sample_record(tmp_path, GREY, outline)
    flips = {"HorizontalFlip": np.fliplr, "VerticalFlip": np.flipud, "Transpose": np.transpose}
    once = _mapper(tmp_path, f"- {name}: {{p: 1}}")(record, seed=0)
    np.testing.assert_array_equal(_bits(once)[0], flips[name](_raster(outline)))
    twice = _mapper(tmp_path, f"- {name}: {{p: 1}}\n" * 2)(record, seed=0)
    np.testing.assert_array_equal(_bits(twice)[0], _raster(outline))
    box = twice["instances"].gt_boxes.tensor[0]
    np.testing.assert_allclose(box, [x, y, x + w, y + h], atol=1e-3)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), resize=st.sampled_from([0, 48, 100]))
def test_trap_12_boxes_and_masks_stay_in_step_under_heavy_crops(tmp_path, seed, resize):
    rng = np.random.default_rng(seed)
    corners = rng.uniform([0, 0], [60, 24], (8, 2))
    boxes = [(x, y, x + rng.uniform(3, 30), y + rng.uniform(3, 40)) for x, y in corners]
    record = sample_record(tmp_path, GREY, *(_rectangle(*box) for box in boxes))
    text = "- Affine: {scale: [0.5, 2.0], rotate: [-45, 45], p: 1}\n"
    text += "- RandomCrop: {height: 30, width: 40}"
    options = {"min_sizes": (resize,), "min_visibility": 0.3, "min_box_size": 2.0}
    sample = _mapper(tmp_path, text, **options)(record, seed=seed)
    instances = sample["instances"]
    height, width = instances.image_size
    assert sample["image"].shape[1:] == (height, width)
    for box, parts in zip(instances.gt_boxes.tensor, instances.gt_masks.polygons, strict=True):
        assert (box[2:] - box[:2]).min() >= 2.0 - 1e-4
        assert box.min() >= 0 and box[2] <= width + 1e-4 and box[3] <= height + 1e-4
        zoomed = polygons_to_bitmask([part * 8 for part in parts], height * 8, width * 8)
        rows, columns = np.flatnonzero(zoomed.any(1)), np.flatnonzero(zoomed.any(0))
        extent = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 8
        # A sharp corner covers no pixel's centre, not even of these small ones.
        np.testing.assert_allclose(box, extent, atol=0.5)
    assert list(instances.gt_classes) == sorted(set(instances.gt_classes.tolist()))


@pytest.mark.parametrize("masks", [True, False])
def test_the_keys_of_the_config_reach_the_samples(tmp_path, masks):
    # The crop keeps x < 30: 20, 10 and 2 columns of the four, and nothing of the last.
    red = GREY + np.array([100, 0, 0], np.uint8)
    people = [_rectangle(x, 10, x + 20, 50) for x in (0, 20, 28, 40)]
    record = sample_record(tmp_path, red, *people)
    (tmp_path / "crop.yaml").write_text(f"- Crop: {{x_max: 30, y_max: {HEIGHT}}}")
    cfg = persondet_cfg()
    cfg.MODEL.MASK_ON, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.FORMAT = masks, (0,), "RGB"
    keys = cfg.INPUT.ALBUMENTATIONS
    keys.PIPELINE = str(tmp_path / "crop.yaml")
    for visibility, size, classes in (
        *((0.0, 0.0, [0, 1, 2]), (0.09, 0.0, [0, 1, 2]), (0.2, 0.0, [0, 1]), (0.6, 0.0, [0])),
        *((0.0, 5.0, [0, 1]), (0.0, 15.0, [0])),
    ):
        keys.MIN_VISIBILITY, keys.MIN_BOX_SIZE = visibility, size
        sample = AlbumentationsDatasetMapper(cfg)(record, seed=0)
        assert sample["instances"].gt_classes.tolist() == classes
        right = sample["instances"].gt_boxes.tensor[-1, 2]
        assert right == pytest.approx(20 if classes == [0] else 30)
        assert sample["image"].shape == (3, HEIGHT, 30) and (sample["image"][0] == 200).all()


def test_trap_12_a_hole_in_the_image_is_a_hole_in_the_mask(tmp_path):
    record = sample_record(tmp_path, GREY, _rectangle(0, 0, WIDTH, HEIGHT))
    text = "- CoarseDropout: {num_holes_range: [3, 3], fill: 0, p: 1}"
    sample = _mapper(tmp_path, text)(record, seed=0)
    hidden = sample["image"][0].numpy() == 0
    assert hidden.any()
    np.testing.assert_array_equal(_bits(sample)[0], ~hidden)


def test_rle_masks_follow_straight_transforms_as_rasters(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 5:20] = True
    mask[15:18, 8:11] = False
    rle = mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))
    record = sample_record(tmp_path, GREY, _rectangle(50, 5, 60, 40), rle)
    sample = _mapper(tmp_path, "- HorizontalFlip: {p: 1}")(record, seed=0)
    expected = [_raster(_rectangle(36, 5, 46, 40)), np.fliplr(mask)]
    np.testing.assert_array_equal(_bits(sample), expected)
    np.testing.assert_array_equal(sample["instances"].gt_boxes.tensor[1], [76, 10, 91, 30])


@pytest.mark.parametrize(
    ("pipeline", "mask_format", "kind"),
    [("", "bitmask", BitMasks), ("- BBoxSafeRandomCrop", "polygon", PolygonMasks)],
)
def test_trap_14_an_image_without_people_gives_empty_fields(tmp_path, pipeline, mask_format, kind):
    mapper = _mapper(tmp_path, pipeline, mask_format=mask_format)
    instances = mapper(sample_record(tmp_path, GREY), seed=0)["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_classes.dtype == torch.int64
    assert isinstance(instances.gt_masks, kind)
    assert len(instances) == len(instances.gt_masks) == 0


def test_trap_09_a_missing_mask_is_said_at_once_and_crowds_are_left_out(tmp_path):
    people = [_rectangle(1, 1, 9, 9), _rectangle(9, 9, 30, 30)]
    record = sample_record(tmp_path, GREY, *people)
    del record["annotations"][1]["segmentation"]
    with pytest.raises(DatasetError, match=r"a\.png: an annotation has no mask.*MASK_ON"):
        _mapper(tmp_path)(record)
    assert len(_mapper(tmp_path, use_masks=False)(record)["instances"]) == 2
    record["annotations"][1]["iscrowd"] = 1
    assert _mapper(tmp_path)(record)["instances"].gt_classes.tolist() == [0]


def test_trap_12_a_sample_follows_from_its_seed_alone(tmp_path):
    text = "- HorizontalFlip\n- Affine: {rotate: [-20, 20], p: 0.8}\n- GaussNoise: {p: 0.5}"
    record = sample_record(tmp_path, GREY, _rectangle(20, 10, 40, 50))
    options = {"min_sizes": (40, 64), "size_sampling": "range"}
    first, second = _mapper(tmp_path, text, **options), _mapper(tmp_path, text, **options)
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    forwards = [first(record, seed=(7, n)) for n in range(8)]
    backwards = [second(record, seed=(7, n)) for n in reversed(range(8))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
    assert len({tuple(sample["image"].shape) for sample in forwards}) > 2
    np.testing.assert_array_equal(state, np.random.get_state()[1])


def test_trap_13_files_that_are_gone_or_of_another_size_are_named(tmp_path):
    record = sample_record(tmp_path, GREY)
    for change, match in (
        ({"file_name": str(tmp_path / "none.jpg")}, "none.jpg: the image is gone"),
        ({"height": 65}, r"a\.png is 96 x 64 pixels, but its json says 96 x 65;"),
        ({"height": 96, "width": 64}, "the other way round: an EXIF rotation"),
    ):
        with pytest.raises(DatasetError, match=match):
            _mapper(tmp_path)({**record, **change})
