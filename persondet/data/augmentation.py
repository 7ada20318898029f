"""Albumentations pipelines written in YAML: read, checked by name and argument, composed.

Some of Albumentations' transforms move points or boxes beside the pixels. OpenCV resizes an image
about the outer edge of its first pixel. Albumentations multiplies point coordinates by the scale,
and counts them from that pixel's centre. Points therefore miss the pixels by half a pixel times
(scale - 1). The classes at the end of this file replace those of the same name."""

from __future__ import annotations

import copy
import difflib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
import yaml

from persondet.environment import config_folder
from persondet.errors import ConfigError

PIPELINE_FOLDER = config_folder() / "augmentations"

_CONTAINERS = ("OneOf", "SomeOf", "Sequential")

# These keep straight lines straight: all they do to coordinates is one projective matrix.
STRAIGHT_LINE_TRANSFORMS = frozenset(
    "Affine AtLeastOneBBoxRandomCrop BBoxSafeRandomCrop CenterCrop Crop CropAndPad D4 "
    "HorizontalFlip LongestMaxSize NoOp Pad PadIfNeeded Perspective RandomCrop "
    "RandomCropFromBorders RandomResizedCrop RandomRotate90 RandomScale RandomSizedBBoxSafeCrop "
    "RandomSizedCrop Resize Rotate SafeRotate ShiftScaleRotate SmallestMaxSize SquareSymmetry "
    "Transpose VerticalFlip".split()
)
# Without a fill value for masks these hide a part of the image and leave the mask whole.
_HIDES_PIXELS = frozenset(
    "CoarseDropout ConstrainedCoarseDropout Erasing GridDropout XYMasking".split()
)
# The only ones among those that keep lines straight which ask where the boxes are.
_LOOKS_AT_BOXES = frozenset(
    "AtLeastOneBBoxRandomCrop BBoxSafeRandomCrop RandomSizedBBoxSafeCrop".split()
)
_CHANGES_VALUES = frozenset("FromFloat Normalize ToFloat".split())
_BASES = (A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D)


def build_augmentation(
    pipeline: str, *, min_visibility: float = 0.0, min_box_size: float = 0.0
) -> A.Compose | None:
    """Build an Albumentations pipeline from a YAML file.

    The file is a list of `Name: {argument: value}` (or just `Name`) of Albumentations transforms;
    `OneOf`, `SomeOf`, `Sequential` hold such a list in `transforms`. YAML is read by the safe
    loader. A result takes `image` (uint8, (H, W, 3), RGB), `bboxes` (pascal_voc) with
    `instance_indices`, and `masks`; when `keeps_straight_lines(result)` also `keypoints` (xy, pixel
    centres), none of which is ever dropped.

    Args:
        pipeline: a name in `configs/augmentations/`, the path of a YAML file, or `"none"`.
        min_visibility: share of its area that a box must keep in each transform.
        min_box_size: pixels that the shorter side of a box must keep.

    Returns:
        the pipeline, None when there is nothing to do.

    Raises:
        ConfigError: when the file is missing or is no such list, a name or an argument is unknown
            (the closest one is suggested), a value is refused, or a transform cannot be used for
            detection (its name and the reason are given).

    Example:
        >>> augmentation = build_augmentation("light", min_visibility=0.2)
        >>> [type(transform).__name__ for transform in augmentation.transforms]
        ['HorizontalFlip', 'RandomBrightnessContrast', 'HueSaturationValue']
    """
    if pipeline in ("", "none"):
        return None
    path = pipeline_file(pipeline)
    transforms = _build_list(_read(path), str(path))
    if not transforms:
        return None
    boxes = A.BboxParams(
        "pascal_voc",
        label_fields=["instance_indices"],
        min_visibility=min_visibility,
        min_width=min_box_size,
        min_height=min_box_size,
        clip=True,
    )
    return _compose(transforms, boxes)


def keeps_straight_lines(augmentation: A.Compose) -> bool:
    """Whether polygons may be transformed by their corners: the geometry is one 3 x 3 matrix."""
    return all(map(_is_straight, _leaves(augmentation.transforms)))


def without_boxes(augmentation: A.Compose) -> A.Compose:
    """Return a pipeline like `augmentation` that takes no `bboxes`, for half the overhead.

    Its random choices and pixels are the same. `augmentation` itself where it bends lines, so that
    boxes cannot be found from points, or a transform looks at the boxes.
    """
    leaves = _leaves(augmentation.transforms)
    if not keeps_straight_lines(augmentation) or any(
        type(leaf).__name__ in _LOOKS_AT_BOXES for leaf in leaves
    ):
        return augmentation
    return _compose(copy.deepcopy(augmentation.transforms), None)


def _compose(transforms: list[Any], boxes: A.BboxParams | None) -> A.Compose:
    straight = all(map(_is_straight, _leaves(transforms)))
    with warnings.catch_warnings():
        # Colours alone leave boxes and points where they are, which is no reason to warn.
        warnings.filterwarnings("ignore", message="Got processor for")
        return A.Compose(
            transforms,
            bbox_params=boxes,
            keypoint_params=A.KeypointParams("xy", remove_invisible=False) if straight else None,
        )


def pipeline_file(pipeline: str) -> Path:
    """Return the YAML file that `INPUT.ALBUMENTATIONS.PIPELINE` names.

    Raises: ConfigError: when it names neither one of ours nor a file.
    """
    named = PIPELINE_FOLDER / f"{pipeline}.yaml"
    if os.sep not in pipeline and named.is_file():
        return named
    path = Path(pipeline)
    if path.is_file():
        return path
    names = sorted(file.stem for file in PIPELINE_FOLDER.glob("*.yaml")) or ["none"]
    raise ConfigError(
        f"INPUT.ALBUMENTATIONS.PIPELINE is {pipeline!r}, which is neither a pipeline nor a file; "
        f"{_hint(pipeline, names)}There are {', '.join(names)}; or give the path of a YAML file."
    )


def _hint(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}? " if close else ""


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not a plain YAML file: {reason}.") from None


def _build_list(entries: Any, where: str) -> list[A.BasicTransform | A.BaseCompose]:
    if not isinstance(entries, list):
        raise ConfigError(f"{where}: expected a list of 'Name: {{arguments}}' entries.")
    return [_build_entry(entry, where) for entry in entries]


def _build_entry(entry: Any, where: str) -> A.BasicTransform | A.BaseCompose:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, dict) or len(entry) != 1 or not isinstance(next(iter(entry)), str):
        raise ConfigError(
            f"{where}: {str(entry)[:60]!r} is not one 'Name: {{arguments}}'; "
            "start each transform with '- '."
        )
    name, arguments = next(iter(entry.items()))
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise ConfigError(f"{where}: the arguments of {name} must be 'name: value' pairs.")
    kind = _transform_class(name, where)
    arguments = {key: _tuples(value) for key, value in arguments.items()}
    known = [key for key in inspect.signature(kind.__init__).parameters if key != "self"]
    for key in (key for key in arguments if key not in known):
        raise ConfigError(
            f"{where}: {name} has no argument {key!r}; {_hint(str(key), known)}"
            f"It takes {', '.join(known)}."
        )
    if name in _CONTAINERS:
        nested = list(arguments.get("transforms") or ())
        if not nested:
            raise ConfigError(f"{where}: {name} needs a list of 'transforms'.")
        arguments["transforms"] = _build_list(nested, f"{where}: {name}")
    if name in _HIDES_PIXELS:
        arguments.setdefault("fill_mask", 0)
    return _construct(kind, name, arguments, where)


def _transform_class(name: str, where: str) -> Any:
    kind = getattr(A, name, None)
    if name in _CONTAINERS:
        return kind
    kinds = {n: getattr(A, n) for n in dir(A) if inspect.isclass(getattr(A, n))}
    names = [n for n, k in kinds.items() if issubclass(k, A.BasicTransform) and k not in _BASES]
    if name not in names:
        raise ConfigError(
            f"{where}: Albumentations {A.__version__} has no transform {name!r}; "
            f"{_hint(name, [*names, *_CONTAINERS])}"
            "Names are written as in its documentation, e.g. HorizontalFlip."
        )
    reason = _why_unusable(kind, name)
    if reason:
        raise ConfigError(f"{where}: {name} cannot be used for detection: {reason}; remove it.")
    return EXACT_TRANSFORMS.get(name, kind)


def _why_unusable(kind: Any, name: str) -> str:
    targets = {target.name for target in np.ravel(getattr(kind, "_targets", ()))}
    if "IMAGE" not in targets:
        return "it does not work on images"
    if name in _CHANGES_VALUES:
        return "it changes the range of the pixel values, and the model normalises by itself"
    if issubclass(kind, A.ImageOnlyTransform) or name == "NoOp":
        return ""
    if not targets & {"BBOXES", "KEYPOINTS"}:
        return "it supports neither boxes nor points, so the annotations would not follow the image"
    if not {"BBOXES", "MASK"} <= targets:
        return "it does not support both boxes and masks"
    return "it moves boxes wrongly" if name == "Morphological" else ""


def _construct(kind: Any, name: str, arguments: dict[str, Any], where: str) -> Any:
    try:
        transform = kind(**arguments)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: {name} refuses its arguments: {reason}.") from None
    further = set(getattr(transform, "targets_as_params", ())) - {"image", "bboxes", "masks"}
    if further and name not in _CONTAINERS:
        raise ConfigError(
            f"{where}: {name} cannot be used here: it needs further inputs "
            f"({', '.join(sorted(further))}); remove it."
        )
    mirrored = (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP)
    if isinstance(transform, A.DualTransform) and (
        getattr(transform, "border_mode", cv2.BORDER_CONSTANT) in mirrored
    ):
        raise ConfigError(
            f"{where}: {name} has a border_mode that mirrors or repeats the image, and with it "
            "people who have no annotation; use 0 (constant) or 1 (replicate)."
        )
    return transform


def _tuples(value: Any) -> Any:
    """Turn lists into tuples: YAML has none, and Albumentations wants them for ranges."""
    if isinstance(value, list) and not any(isinstance(item, (dict, str)) for item in value):
        return tuple(_tuples(item) for item in value)
    return value


def _leaves(transforms: Any) -> Iterator[Any]:
    for transform in transforms:
        if isinstance(transform, A.BaseCompose):
            yield from _leaves(transform.transforms)
        else:
            yield transform


def _is_straight(transform: Any) -> bool:
    image_only = isinstance(transform, A.ImageOnlyTransform)
    return image_only or type(transform).__name__ in STRAIGHT_LINE_TRANSFORMS


class _ScalesAboutEdge:
    """Counts points from the outer edge while they are scaled. Points are (N, 2+), xy first."""

    def apply_to_keypoints(
        self, keypoints: npt.NDArray[Any], *args: Any, **params: Any
    ) -> npt.NDArray[Any]:
        shifted = np.array(keypoints, np.float64)
        shifted[:, :2] += 0.5
        scaled = np.array(super().apply_to_keypoints(shifted, *args, **params), np.float64)  # type: ignore[misc]
        scaled[:, :2] -= 0.5
        return scaled


class _ScalesWhole:
    """Scales points as the image is scaled: to a whole number of pixels."""

    _whole: Callable[[float], int] = staticmethod(round)

    def apply_to_keypoints(
        self, keypoints: npt.NDArray[Any], scale: float, **params: Any
    ) -> npt.NDArray[Any]:
        scaled = np.array(keypoints, np.float64)
        for axis, length in ((0, params["shape"][1]), (1, params["shape"][0])):
            factor = max(1, self._whole(length * scale)) / length
            scaled[:, axis] = (scaled[:, axis] + 0.5) * factor - 0.5
        return scaled


class CropAndPad(_ScalesAboutEdge, A.CropAndPad):
    """`albumentations.CropAndPad`, exact for points."""


class LongestMaxSize(_ScalesWhole, A.LongestMaxSize):
    """`albumentations.LongestMaxSize`, exact for points."""


class RandomResizedCrop(_ScalesAboutEdge, A.RandomResizedCrop):
    """`albumentations.RandomResizedCrop`, exact for points."""


class RandomScale(_ScalesWhole, A.RandomScale):
    """`albumentations.RandomScale`, exact for points."""

    _whole = staticmethod(int)


class RandomSizedBBoxSafeCrop(_ScalesAboutEdge, A.RandomSizedBBoxSafeCrop):
    """`albumentations.RandomSizedBBoxSafeCrop`, exact for points."""


class RandomSizedCrop(_ScalesAboutEdge, A.RandomSizedCrop):
    """`albumentations.RandomSizedCrop`, exact for points."""


class Resize(_ScalesAboutEdge, A.Resize):
    """`albumentations.Resize`, exact for points."""


class SmallestMaxSize(_ScalesWhole, A.SmallestMaxSize):
    """`albumentations.SmallestMaxSize`, exact for points."""


EXACT_TRANSFORMS: dict[str, type[A.DualTransform]] = {
    name: kind
    for name, kind in list(globals().items())
    if inspect.isclass(kind) and issubclass(kind, A.DualTransform)
}
"""Name to the class to build instead of Albumentations' own."""
