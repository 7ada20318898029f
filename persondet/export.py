"""Export a trained model to one ONNX file, and refuse it unless it detects what the model does.

`persondet.onnx_predictor` says what the file holds. The graph is PyTorch's trace of the model in
float32 on the CPU, by its exporter for TorchScript: the newer one (`dynamo=True`) cannot follow
Detectron2's choice of proposals.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.export import TracingAdapter
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from torch import nn

from persondet.data.roboflow import file_names, read_export
from persondet.engine.defaults import export_root
from persondet.environment import Progress
from persondet.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    InstallationError,
    MediaError,
)
from persondet.files import atomic_path, path_inside, refuse_existing, write_text
from persondet.inference.images import load_image
from persondet.inference.masks import RegionMasks, paste_arrays, region_masks_of
from persondet.inference.predictor import Predictor, run_cfg
from persondet.onnx_predictor import (
    METADATA,
    VERSION,
    ArrayInstances,
    OnnxPredictor,
    resized_shape,
    seal,
)
from persondet.text import one_line

OPSET = 17
# How far the file's detections may be from the model's: pixels, score, and share of the pixels of
# an image in which a mask is the same.
BOX, SCORE, MASK = 0.01, 1e-4, 0.999
_EMPTY = "an empty image"


@dataclass(frozen=True)
class Agreement:
    """How far the file's detections in one image are from the model's.

    Attributes:
        image: its name; height, width: its size, pixels.
        detections: of the model; unpaired: of model or file, without one of the other.
        box: the farthest edges of two boxes are apart, pixels.
        score: the farthest scores are apart.
        mask: the least share of the image's pixels in which two masks are the same; 1 without any.
    """

    image: str
    height: int
    width: int
    detections: int
    unpaired: int
    box: float
    score: float
    mask: float

    @property
    def holds(self) -> bool:
        """Whether every detection has its twin within the limits."""
        near = self.box <= BOX and self.score <= SCORE and self.mask >= MASK
        return near and not self.unpaired


def export_model(
    run: str | Path,
    output: str | Path,
    announce: Callable[[str], None],
    *,
    dataset: str | Path = "",
    count: int = 10,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Agreement]:
    """Export a run's best model, and compare the file with it.

    Beside `model.onnx` goes the table of differences, `model_agreement.txt`.

    Args:
        run: a run folder or a checkpoint that carries its config.
        output: the file, `.onnx`.
        announce: gets the table, also when the file is refused.
        dataset: the export whose validation split the images are of; default: the run's.
        count: images of it to compare on, beside an empty one.
        progress: called after each image with the number done and the total.

    Raises: CheckpointError: when the model cannot be exported, or the file does not agree with it;
        nothing is written then. DatasetError: when there is no image to compare on.
        InstallationError: without onnx and ONNX Runtime. OutputExistsError.
    """
    output = Path(output)
    if output.suffix != ".onnx":
        raise ConfigError(f"--output {output}: a model file's name ends with .onnx.")
    table_path = output.with_name(f"{output.stem}_agreement.txt")
    for path in (output, table_path):
        refuse_existing(path, overwrite=overwrite)
    eager = exact_predictor(run)
    images = list(_validation_images(dataset or export_root(eager.cfg), eager.cfg, count))
    images.insert(len(images) - 1, (_EMPTY, np.zeros_like(images[0][1])))
    tell = progress or (lambda *_: None)
    with atomic_path(output) as temporary:
        write_model(eager, temporary)
        exported, rows = OnnxPredictor(temporary), []
        for name, image in images:
            rows.append(compare(eager, exported, name, image))
            tell(len(rows), len(images))
        table = agreement_table(rows)
        announce(table)
        wrong = [row for row in rows if not row.holds]
        if wrong:
            raise CheckpointError(
                f"{output} is not written: its detections are not the model's in {len(wrong)} of "
                f"{len(rows)} images, such as {wrong[0].image}; train a model of random weights "
                "first (docs/deploy.md says why), and report the table above for any other."
            )
    write_text(table_path, table + "\n")
    return rows


def exact_predictor(run: str | Path) -> Predictor:
    """Return what a file of a run is compared with: its model on the CPU in float32, untiled."""
    cfg = run_cfg(run)
    if cfg.TEST.TILES:
        raise ConfigError(
            f"{run}: its TEST.TILES are {cfg.TEST.TILES}, and a model file sees whole images only; "
            "export a run without tiles."
        )
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED = "cpu", False
    return Predictor(cfg)


def _validation_images(root: str | Path, cfg: Any, count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, uint8 (H, W, 3) BGR) of images from the whole length of the validation split."""
    ours = f"{cfg.DATASETS.ROBOFLOW.NAME}_"
    splits = [name.removeprefix(ours) for name in cfg.DATASETS.VAL if name.startswith(ours)]
    mend = "name the export with --dataset"
    try:
        export = read_export(root)
    except DatasetError as error:
        raise DatasetError(f"{str(error).rstrip('.')}; {mend}.") from error
    paths = [
        path_inside(export.folders[split], name)
        for split in splits or ["valid"]
        if split in export.splits
        for name in file_names(export.splits[split])
    ]
    found = 0
    for place in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int):
        try:
            yield paths[place].name, load_image(paths[place])
            found += 1
        except MediaError:
            continue
    if not found:
        raise DatasetError(f"{root}: has no image of a validation split to compare on; {mend}.")


def write_model(eager: Predictor, path: Path) -> None:
    """Write a predictor's model as a file for `persondet.onnx_predictor.OnnxPredictor`.

    Raises: CheckpointError: when it is no R-CNN, or PyTorch cannot export it.
        InstallationError: without onnx.
    """
    try:
        import onnx
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise InstallationError(
            f"onnx cannot be imported ({reason}); run `pip install persondet[onnx]`."
        ) from error
    heads = [m for m in eager.model.modules() if isinstance(m, FastRCNNOutputLayers)]
    if not any(isinstance(m, GeneralizedRCNN) for m in eager.model.modules()) or not heads:
        raise CheckpointError(f"{eager.model_file}: is no R-CNN; only R-CNNs can be exported.")
    # What the predictor asks for, or the config's own threshold where that is higher.
    threshold = max(eager.confidence_threshold, max(head.test_score_thresh for head in heads))
    rgb = eager.cfg.INPUT.FORMAT == "RGB"

    def detect(
        model: nn.Module, image: torch.Tensor, size: torch.Tensor, least: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        for head in heads:
            head.test_score_thresh = least[0] - 1e-6
        channels = image.permute(2, 0, 1)
        channels = channels.flip(0) if rgb else channels
        (output,) = model([{"image": channels, "height": size[0], "width": size[1]}])
        found = output["instances"]
        found = found[found.scores >= least]
        masks = [found.roi_masks.tensor] if found.has("roi_masks") else []
        return (found.pred_boxes.tensor, found.scores, found.pred_classes, *masks)

    # A trace follows one image: noise, and no threshold, so that every part has something to do.
    short, long = eager.cfg.INPUT.MIN_SIZE_TEST or 320, eager.cfg.INPUT.MAX_SIZE_TEST
    shape = resized_shape(480, 640, short, long)
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    given = (torch.from_numpy(noise), torch.tensor([480, 640]), torch.tensor([0.0]))
    names = ["boxes", "scores", "classes", "masks"][: 4 if eager.cfg.MODEL.MASK_ON else 3]
    before = [head.test_score_thresh for head in heads]
    eager.predict_frames([noise])  # layers fold what they keep, and the trace finds constants
    try:
        with _quiet():
            torch.onnx.export(
                TracingAdapter(eager.model, given, detect).eval(),
                given,
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image", "size", "threshold"],
                output_names=names,
                dynamic_axes={
                    "image": {0: "height", 1: "width"},
                    **{n: {0: "people"} for n in names},
                },
            )
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{eager.model_file}: PyTorch cannot export this model ({reason}); choose another "
            "backbone."
        ) from error
    finally:
        for head, least in zip(heads, before, strict=True):
            head.test_score_thresh = least
    model = onnx.load(path)
    # An input with a value is one that may be left out.
    default = onnx.numpy_helper.from_array(np.array([threshold], np.float32), "threshold")
    model.graph.initializer.append(default)
    facts = {
        "version": VERSION,
        "model": eager.model_file,
        "classes": eager.metadata.thing_classes,
        "score_threshold": threshold,
        "min_size": eager.cfg.INPUT.MIN_SIZE_TEST,
        "max_size": eager.cfg.INPUT.MAX_SIZE_TEST,
    }
    onnx.helper.set_model_props(model, {METADATA: json.dumps(facts)})
    content = model.SerializeToString()
    path.write_bytes(content + seal(content))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep off the terminal that the exporter is the older one, and what a trace keeps fixed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def compare(eager: Predictor, exported: OnnxPredictor, name: str, image: np.ndarray) -> Agreement:
    """Compare what a model and its file detect in one image, uint8, (H, W, 3), BGR.

    A detection whose score is within `SCORE` of the lowest that can be returned may be missing on
    one side: below the threshold or, where there are `TEST.DETECTIONS_PER_IMAGE`, below the last.
    """
    (found,) = eager.predict_frames([image])
    (other,) = exported.predict_frames([image])
    boxes, scores = found.pred_boxes.tensor.numpy(), found.scores.numpy()
    apart = np.abs(boxes[:, None] - other.pred_boxes[None]).max(axis=2, initial=0)
    apart[found.pred_classes.numpy()[:, None] != other.pred_classes] = np.inf
    pairs, mine, theirs = [], set(range(len(scores))), set(range(len(other)))
    while mine and theirs:
        i, j = np.unravel_index(apart.argmin(), apart.shape)
        if apart[i, j] > 1:
            break
        pairs.append((int(i), int(j)))
        mine.remove(int(i))
        theirs.remove(int(j))
        apart[i], apart[:, j] = np.inf, np.inf
    lowest = exported.confidence_threshold
    if len(scores) >= eager.cfg.TEST.DETECTIONS_PER_IMAGE:
        lowest = max(lowest, float(scores.min()))
    alone = [*scores[sorted(mine)], *other.scores[sorted(theirs)]]
    first, second = (np.array([p[k] for p in pairs], int) for k in (0, 1))
    return Agreement(
        one_line(name, 40),
        height=image.shape[0],
        width=image.shape[1],
        detections=len(scores),
        unpaired=sum(float(score) > lowest + SCORE for score in alone),
        box=float(np.abs(boxes[first] - other.pred_boxes[second]).max(initial=0)),
        score=float(np.abs(scores[first] - other.scores[second]).max(initial=0)),
        mask=_same_pixels(region_masks_of(found), _masks(other), pairs),
    )


def _masks(found: ArrayInstances) -> RegionMasks | None:
    if found.roi_masks is None:
        return None
    return paste_arrays(found.roi_masks, found.pred_boxes, found.image_size)


def _same_pixels(
    mine: RegionMasks | None, theirs: RegionMasks | None, pairs: list[tuple[int, int]]
) -> float:
    """Return the least share of an image's pixels in which paired masks are the same."""
    if mine is None or theirs is None:
        return float(mine is theirs)
    return min((float((mine.whole(i) == theirs.whole(j)).mean()) for i, j in pairs), default=1.0)


def agreement_table(rows: list[Agreement]) -> str:
    """Return the rows as text, with the limits and what came out."""
    from tabulate import tabulate

    lines = [
        (
            row.image,
            f"{row.width} x {row.height}",
            row.detections,
            row.unpaired,
            f"{row.box:.1e}",
            f"{row.score:.1e}",
            f"{100 * row.mask:.4f} %",
            "" if row.holds else "differs",
        )
        for row in rows
    ]
    heads = ("image", "size", "detections", "unpaired", "box, px", "score", "mask pixels", "")
    agreed = sum(row.holds for row in rows)
    return (
        f"{tabulate(lines, heads, disable_numparse=True)}\n"
        f"The file agrees with the model in {agreed} of {len(rows)} images: boxes within {BOX} px, "
        f"scores within {SCORE:.4f}, masks equal in {100 * MASK} % of the pixels."
    )
