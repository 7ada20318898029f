"""Albumentations pipelines written in YAML: read, checked by name and argument, composed.

Albumentations' transforms whose points or boxes miss the pixels, mended.

OpenCV resizes an image about the outer edge of its first pixel; Albumentations multiplies point
coordinates, which count from that pixel's centre, by the scale. By half a pixel times (scale - 1)
the points miss the pixels. The classes here replace those of the same name.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import logging
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

from persondet.errors import ConfigError

logger = logging.getLogger(__name__)

PIPELINE_FOLDER = Path(__file__).resolve().parents[2] / "configs" / "augmentations"

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
    straight = all(_is_straight(transform) for transform in _leaves(transforms))
    boxes = A.BboxParams(
        "pascal_voc",
        label_fields=["instance_indices"],
        min_visibility=min_visibility,
        min_width=min_box_size,
        min_height=min_box_size,
        clip=True,
    )
    return _compose(transforms, boxes, straight=straight)


def keeps_straight_lines(augmentation: A.Compose) -> bool:
    """Whether polygons may be transformed by their corners: the geometry is one 3 x 3 matrix."""
    return all(_is_straight(transform) for transform in _leaves(augmentation.transforms))


def without_boxes(augmentation: A.Compose) -> A.Compose:
    """Return a pipeline like `augmentation` that takes no `bboxes`, for half the overhead.

    Its random choices and pixels are the same. `augmentation` itself where it bends lines, so that
    boxes cannot be found from points, or a transform looks at the boxes.
    """
    leaves = list(_leaves(augmentation.transforms))
    looks = any(type(leaf).__name__ in _LOOKS_AT_BOXES for leaf in leaves)
    if looks or not all(_is_straight(leaf) for leaf in leaves):
        return augmentation
    return _compose(copy.deepcopy(augmentation.transforms), None, straight=True)


def takes_boxes(augmentation: A.Compose) -> bool:
    """Whether a pipeline takes `bboxes` with `instance_indices`."""
    return "bboxes" in augmentation.processors


def _compose(transforms: list[Any], boxes: A.BboxParams | None, *, straight: bool) -> A.Compose:
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
    close = difflib.get_close_matches(pipeline, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigError(
        f"INPUT.ALBUMENTATIONS.PIPELINE is {pipeline!r}, which is neither a pipeline nor a file; "
        f"{hint}There are {', '.join(names)}; or give the path of a YAML file."
    )


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
    for key in arguments:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{where}: {name} has no argument {key!r}; {hint}It takes {', '.join(known)}."
            )
    if name in _CONTAINERS:
        nested = list(arguments.get("transforms") or ())
        if not nested:
            raise ConfigError(f"{where}: {name} needs a list of 'transforms'.")
        arguments["transforms"] = _build_list(nested, f"{where}: {name}")
    if name in _HIDES_PIXELS:
        arguments.setdefault("fill_mask", 0)
    transform = _construct(kind, name, arguments, where)
    _check_border(transform, name, where)
    return transform


def _transform_class(name: str, where: str) -> Any:
    kind = getattr(A, name, None)
    if name in _CONTAINERS:
        return kind
    names = _transform_names()
    if name not in names:
        close = difflib.get_close_matches(name, [*names, *_CONTAINERS], n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"{where}: Albumentations {A.__version__} has no transform {name!r}; {hint}"
            "Names are written as in its documentation, e.g. HorizontalFlip."
        )
    reason = _why_unusable(kind, name)
    if reason:
        raise ConfigError(f"{where}: {name} cannot be used for detection: {reason}; remove it.")
    return EXACT_TRANSFORMS.get(name, kind)


def _transform_names() -> list[str]:
    """What Albumentations has, without the classes that are only there to be derived from."""
    kinds = {name: getattr(A, name) for name in dir(A) if inspect.isclass(getattr(A, name))}
    bases = (A.BasicTransform, A.DualTransform, A.ImageOnlyTransform, A.Transform3D)
    return [n for n, k in kinds.items() if issubclass(k, A.BasicTransform) and k not in bases]


def _why_unusable(kind: Any, name: str) -> str:
    targets = {target.name for target in _targets(kind)}
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
    return ""


def _targets(kind: Any) -> tuple[Any, ...]:
    targets = getattr(kind, "_targets", ())
    return tuple(targets) if isinstance(targets, (tuple, list, set)) else (targets,)


def _construct(kind: Any, name: str, arguments: dict[str, Any], where: str) -> Any:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            transform = kind(**arguments)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: {name} refuses its arguments: {reason}.") from None
    for warning in caught:
        logger.warning("%s: %s: %s", where, name, warning.message)
    if name not in _CONTAINERS:
        further = set(transform.targets_as_params) - {"image", "bboxes", "masks"}
        if further:
            raise ConfigError(
                f"{where}: {name} cannot be used here: it needs further inputs "
                f"({', '.join(sorted(further))}); remove it."
            )
    return transform


def _check_border(transform: Any, name: str, where: str) -> None:
    mirrored = (cv2.BORDER_REFLECT, cv2.BORDER_REFLECT_101, cv2.BORDER_WRAP)
    if isinstance(transform, A.DualTransform) and (
        getattr(transform, "border_mode", cv2.BORDER_CONSTANT) in mirrored
    ):
        raise ConfigError(
            f"{where}: {name} has a border_mode that mirrors or repeats the image, and with it "
            "people who have no annotation; use 0 (constant) or 1 (replicate)."
        )


def _tuples(value: Any) -> Any:
    """YAML has no tuples, Albumentations takes its ranges as tuples."""
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


class Morphological(A.Morphological):
    """`albumentations.Morphological`, with boxes that grow and shrink in both directions.

    Albumentations hands OpenCV the masks of all boxes as one stack, whose axes OpenCV takes for
    others: boxes come out wrong, and from a width of 129 pixels on not at all.
    """

    def apply_to_bboxes(
        self, bboxes: npt.NDArray[Any], kernel: npt.NDArray[Any], **params: Any
    ) -> npt.NDArray[Any]:
        """Transform boxes (N, 4+), xyxy as shares of the image; what vanishes gets no size."""
        moved = np.array(bboxes, np.float64)
        height, width = params["shape"][:2]
        size = np.array([width, height] * 2)
        for row in moved:
            left, top, right, bottom = np.round(row[:4] * size).astype(int)
            mask = np.zeros((height, width), np.uint8)
            mask[top:bottom, left:right] = 1
            columns, rows = (np.flatnonzero(line) for line in self._lines(mask, kernel, params))
            ends = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if len(rows) else [0] * 4
            row[:4] = ends / size
        return moved

    def _lines(
        self, mask: npt.NDArray[np.uint8], kernel: npt.NDArray[Any], params: dict[str, Any]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        changed = self.apply(mask, kernel=kernel, **params)
        return changed.any(axis=0), changed.any(axis=1)


EXACT_TRANSFORMS: dict[str, type[A.DualTransform]] = {
    kind.__name__: kind
    for kind in (
        *(CropAndPad, LongestMaxSize, Morphological, RandomResizedCrop, RandomScale),
        *(RandomSizedBBoxSafeCrop, RandomSizedCrop, Resize, SmallestMaxSize),
    )
}
"""By name, what to build instead of Albumentations' own class."""
