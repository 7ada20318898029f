"""Pipelines in YAML: what is built, and how mistakes are named."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest

from persondet.data.augmentation import PIPELINE_FOLDER, build_augmentation, keeps_straight_lines
from persondet.errors import ConfigError


def _build(tmp_path, text):
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    return build_augmentation(str(path))


def test_no_pipeline_and_an_unknown_one(tmp_path):
    for none in ("none", "", str(PIPELINE_FOLDER / "none.yaml")):
        assert build_augmentation(none) is None
    assert _build(tmp_path, "") is None
    with pytest.raises(ConfigError, match="did you mean 'street'.*crowd, light, none, street"):
        build_augmentation("steet")


@pytest.mark.parametrize("name", ["light", "street", "crowd"])
def test_ours_keep_polygons_and_leave_the_people_in(name):
    augmentation = build_augmentation(name)
    assert keeps_straight_lines(augmentation)
    given = {"image": np.full((90, 160, 3), 100, np.uint8), "keypoints": np.zeros((4, 2))}
    given |= {"bboxes": np.array([[60.0, 20, 90, 80]]), "instance_indices": [0]}
    for seed in range(10):
        augmentation.set_random_state(np.random.default_rng(seed), random.Random(seed))
        result = augmentation(**given)
        assert result["image"].dtype == np.uint8
        assert (len(result["bboxes"]), len(result["keypoints"])) == (1, 4)


def test_the_file_says_what_is_built(tmp_path):
    text = """
- HorizontalFlip
- Affine: {rotate: [-3, 3], p: 1.0}
- OneOf:
    p: 0.4
    transforms:
      - GaussianBlur: {blur_limit: [3, 5], p: 0.25}
      - MedianBlur
- CoarseDropout: {num_holes_range: [1, 3]}
"""
    built = _build(tmp_path, text)
    flip, affine, either, dropout = built.transforms
    kinds = [type(transform).__name__ for transform in built.transforms]
    assert kinds == ["HorizontalFlip", "Affine", "OneOf", "CoarseDropout"]
    assert (flip.p, affine.p, either.p) == (0.5, 1.0, 0.4)
    assert affine.rotate == (-3, 3)
    assert either.transforms[0].blur_limit == (3, 5)
    # Trap 12: unless told, it would hide people and leave their masks whole.
    assert dropout.fill_mask == 0
    assert not keeps_straight_lines(built)
    whole = _build(tmp_path, "- CoarseDropout: {fill_mask: null}")
    assert whole.transforms[0].fill_mask is None  # on purpose


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- HorizontalFilp: {p: 1}", "did you mean 'HorizontalFlip'"),
        ("- HorizontalFlip: {prob: 1}", "HorizontalFlip has no argument 'prob'; did you mean 'p'"),
        ("- HorizontalFlip: {p: 3}", "HorizontalFlip refuses its arguments"),
        # Trap 12: several transforms support neither boxes nor points.
        ("- OverlayElements", "OverlayElements cannot be used for detection: it supports neither"),
        ("- Normalize", "the model normalises by itself"),
        ("- CenterCrop3D: {size: [1, 2, 3]}", "does not work on images"),
        ("- RandomCropNearBBox", "needs further inputs (cropping_bbox)"),
        ("- Rotate: {border_mode: 4}", "mirrors or repeats"),
        ("- HorizontalFlip: {p: 1}\n  VerticalFlip: {p: 1}", "not one 'Name: {arguments}'"),
        ("- HorizontalFlip: 0.5", "must be 'name: value' pairs"),
        ("- OneOf: {p: 1}", "OneOf needs a list of 'transforms'"),
        ("- Compose: {transforms: []}", "no transform 'Compose'"),
        ("- a: [", "not a plain YAML file"),
        ("- !!python/object/apply:os.system ['true']", "not a plain YAML file"),
    ],
)
def test_mistakes_are_named_in_one_sentence(tmp_path, text, says):
    with pytest.raises(ConfigError) as caught:
        _build(tmp_path, text)
    assert says in str(caught.value) and "pipeline.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trap_12_importing_albumentations_asks_no_network():
    # The variable is read while Albumentations is imported, so the package sets it before any of
    # its modules can do that, and nobody else imports Albumentations.
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    root = PIPELINE_FOLDER.parents[1]
    script = "import persondet.data, os, sys; print('albumentations' in sys.modules, os.environ)"
    environment["PYTHONPATH"] = str(root)
    command = [sys.executable, "-c", script]
    out = subprocess.check_output(command, env=environment, text=True)
    assert out.startswith("False ") and "'NO_ALBUMENTATIONS_UPDATE': '1'" in out
    sources = [*root.glob("persondet/**/*.py"), *root.glob("tools/**/*.py")]
    imports = re.compile("(import|from) albumentations")
    assert {path.parent.name for path in sources if imports.search(path.read_text())} == {"data"}
