"""The predictor of a trained run: an image in, `Instances` out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.catalog import Metadata
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances, ROIMasks
from torch import nn
from yaml import YAMLError

from persondet.checkpoint.model_file import CarriedFacts, load_checkpoint
from persondet.config import get_cfg
from persondet.data.register import class_colors
from persondet.engine.defaults import load_cfg
from persondet.engine.run_folder import build_inference_model, find_model
from persondet.environment import cpu_count, keep_freed_memory
from persondet.errors import CheckpointError, ConfigError
from persondet.files import sha256_of_file
from persondet.inference.masks import ROI_FIELD, paste_whole
from persondet.inference.tiles import TiledModel, whole_size
from persondet.modeling.detections import keep_roi_masks
from persondet.modeling.precision import autocast, resolve_device
from persondet.onnx_predictor import ArrayInstances, OnnxPredictor
from persondet.results import DEFAULT_THRESHOLD

logger = logging.getLogger(__name__)


class Predictor:
    """Detect objects in images with a trained model.

    Args:
        cfg: with `MODEL.WEIGHTS`; not changed.
        confidence_threshold: the predictor drops detections below it. Default:
            `VISUALIZATION.SCORE_THRESH`, else the threshold in the checkpoint, else 0.5.
        least_score: keep detections from this score on instead, if it is lower, for a caller who
            tells the two apart by `confidence_threshold`, as `annotate_video` does to hide people.

    Attributes:
        metadata: Detectron2 metadata with `thing_classes` and `thing_colors`.
        batch_size: frames per forward pass that suit this device.
        model: returns `roi_masks` where Detectron2's own would paste `pred_masks`.
        workers: number of forward passes of a clip to run at once on this device.
        digest: SHA-256 of the weights' file and of the config, whatever folder they lie in.

    Raises: CheckpointError, ConfigError: when the model or a key cannot be used.

    Example:
        >>> predictor = Predictor.from_run("output/person", confidence_threshold=0.5)
        >>> people = predictor(cv2.imread("street.jpg"))
        >>> people.pred_boxes.tensor.shape[1], people.image_size
        (4, (64, 96))
    """

    def __init__(
        self,
        cfg: CfgNode,
        *,
        confidence_threshold: float | None = None,
        least_score: float | None = None,
    ) -> None:
        if confidence_threshold is not None and not 0.0 <= confidence_threshold <= 1.0:
            raise ConfigError(
                f"the confidence threshold is {confidence_threshold}; it must be from 0 to 1."
            )
        self.cfg = cfg.clone()
        self.cfg.defrost()
        self.cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
        built = build_inference_model(self.cfg)
        asked = confidence_threshold is not None
        known = cfg.VISUALIZATION.SCORE_THRESH or built.facts.score_threshold or DEFAULT_THRESHOLD
        self.confidence_threshold = float(
            known if confidence_threshold is None else confidence_threshold
        )
        low = self.confidence_threshold if least_score is None else least_score
        self.least_score = min(low, self.confidence_threshold)
        asked = asked or least_score is not None
        self.model = built.model
        keep_roi_masks(self.model, appearance=True)
        _drop_early(self.model, self.least_score, asked=asked)
        if self.cfg.TEST.TILES:
            self.model = TiledModel(self.cfg, self.model)
            self.cfg = whole_size(self.cfg)
        # For records: run folder and file, without the path to them.
        weights = self.cfg.MODEL.WEIGHTS
        parts = Path(weights).resolve().parts[-2:]
        self.model_file = weights if "://" in weights else "/".join(parts)
        self.metadata = Metadata(
            name="persondet",
            thing_classes=list(built.class_names),
            thing_colors=class_colors(len(built.class_names)),
        )
        on_gpu = self.cfg.MODEL.DEVICE.startswith("cuda")
        if not on_gpu:
            keep_freed_memory()
        self.batch_size = self.cfg.VIDEO.BATCH_SIZE or (8 if on_gpu else 2)
        self.workers = 1 if on_gpu else min(cpu_count(), 4)
        size = self.cfg.INPUT.MIN_SIZE_TEST
        self._resize = T.ResizeShortestEdge([size, size], self.cfg.INPUT.MAX_SIZE_TEST)

    @classmethod
    def from_run(
        cls,
        run_dir: str | Path,
        *,
        confidence_threshold: float | None = None,
        least_score: float | None = None,
        device: str | None = None,
        tiles: Sequence[int] | None = None,
    ) -> Predictor:
        """Return a predictor of a run's best model; `run_dir` may also be a checkpoint file.

        Args:
            tiles: columns and rows of tiles to look at beside the whole image; default: those of
                `TEST.TILES` in the run's config.
            device: e.g. `cpu`; default: a GPU if there is one, wherever the run was trained.

        Raises: CheckpointError: when there is no checkpoint, or it does not carry its config.
        """
        cfg = run_cfg(run_dir)
        cfg.MODEL.DEVICE = device or "auto"
        cfg.TEST.TILES = tuple(tiles or cfg.TEST.TILES)
        return cls(cfg, confidence_threshold=confidence_threshold, least_score=least_score)

    @cached_property
    def digest(self) -> str:
        """Tell models apart by what they compute and not by their names."""
        weights, cfg = self.cfg.MODEL.WEIGHTS, self.cfg.clone()
        cfg.MODEL.WEIGHTS = sha256_of_file(weights) if Path(weights).is_file() else weights
        cfg.MODEL.DEVICE = cfg.OUTPUT_DIR = ""
        return hashlib.sha256(cfg.dump().encode()).hexdigest()

    def __call__(self, image: np.ndarray) -> Instances:
        """Detect objects in one image: uint8, (H, W, 3), BGR, 0..255; see `predict_batch`."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detect objects in several images with one forward pass.

        Args:
            images: each uint8, (H, W, 3), BGR, 0..255; sizes may differ.

        Returns: for each image `Instances` on the CPU, by falling score, none below `least_score`:
            `pred_boxes` (float32, (N, 4), XYXY_ABS, pixels of the given image), `scores` (float32,
            (N,)), `pred_classes` (int64, (N,), into `metadata.thing_classes`), where the model has
            masks, `pred_masks` (bool, (N, H, W)), and of an R-CNN, `appearance` (float32, (N, D),
            see `persondet.modeling.appearance`).
        """
        return [paste_whole(instances) for instances in self.predict_frames(images)]

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detect as `predict_batch` does, but leave the masks as small as the model makes them.

        Returns: as `predict_batch`, with `roi_masks` (`ROIMasks`, float32, (N, M, M), 0..1) instead
            of `pred_masks`; `persondet.inference.masks` pastes them. Models other than R-CNNs keep
            their `pred_masks`.
        """
        inputs = [self._model_input(image) for image in images]
        with torch.inference_mode(), autocast(self.cfg):
            outputs = self.model(inputs)
        results = []
        for output in outputs:
            instances = output["instances"]
            instances = instances[instances.scores >= self.least_score].to("cpu")
            instances.pred_boxes.tensor = instances.pred_boxes.tensor.float()
            instances.scores = instances.scores.float()
            if instances.has(ROI_FIELD):
                # Resampling needs float32 whatever the model runs in: bfloat16 frays the edges.
                instances.set(ROI_FIELD, ROIMasks(instances.get(ROI_FIELD).tensor.float()))
            results.append(instances)
        return results

    def _model_input(self, image: np.ndarray) -> dict[str, object]:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 (H, W, 3), got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        resized = self._resize.get_transform(image).apply_image(image)
        if self.cfg.INPUT.FORMAT == "RGB":
            resized = resized[:, :, ::-1]
        tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}


class ExportedPredictor:
    """An exported model behind the interface of `Predictor`, for everything that is built on that.

    Detections are those of `OnnxPredictor`, as `Instances`.

    Args:
        path, confidence_threshold, threads: see `OnnxPredictor`; least_score: see `Predictor`.
    """

    batch_size = 1

    def __init__(
        self,
        path: str | Path,
        *,
        confidence_threshold: float | None = None,
        least_score: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._exported = OnnxPredictor(
            path, confidence_threshold=confidence_threshold, threads=threads
        )
        self.confidence_threshold = self._exported.confidence_threshold
        if least_score is not None:
            self._exported.confidence_threshold = min(least_score, self.confidence_threshold)
        self.model_file, self.digest = self._exported.model_file, self._exported.digest
        classes = list(self._exported.class_names)
        colors = class_colors(len(classes))
        self.metadata = Metadata(name="persondet", thing_classes=classes, thing_colors=colors)
        self.workers = max(1, min(cpu_count(), 4) // (threads or cpu_count()))

    def __call__(self, image: np.ndarray) -> Instances:
        """Detect objects in one image: uint8, (H, W, 3), BGR, 0..255; as `Predictor`."""
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detect objects in several images; as `Predictor.predict_batch`."""
        return [paste_whole(instances) for instances in self.predict_frames(images)]

    def predict_frames(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """Detect with masks as small as they are made; as `Predictor.predict_frames`."""
        return [_instances(found) for found in self._exported.predict_frames(images)]


def _instances(found: ArrayInstances) -> Instances:
    fields: dict[str, object] = {
        "pred_boxes": Boxes(torch.from_numpy(found.pred_boxes)),
        "scores": torch.from_numpy(found.scores),
        "pred_classes": torch.from_numpy(found.pred_classes),
    }
    if found.roi_masks is not None:
        fields[ROI_FIELD] = ROIMasks(torch.from_numpy(found.roi_masks))
    return Instances(found.image_size, **fields)


def load_predictor(
    run: str | Path = "",
    config_file: str = "",
    opts: Sequence[str] = (),
    *,
    model: str | Path = "",
    confidence_threshold: float | None = None,
    least_score: float | None = None,
    tiles: Sequence[int] | None = None,
    threads: int | None = None,
) -> Predictor | ExportedPredictor:
    """Return the predictor of `run` (see `Predictor.from_run`), of `model`, or of a config file.

    Args:
        model: a file of `tools/export_model.py`.
        threads: of the processor, for one image of `model`; default: all.

    Raises: PersondetError: when run, model, config or checkpoint cannot be used.
    """
    more: dict[str, Any] = {"confidence_threshold": confidence_threshold}
    more |= {"least_score": least_score}
    if model:
        return ExportedPredictor(model, threads=threads, **more)
    if run:
        return Predictor.from_run(run, tiles=tiles, **more)
    cfg = load_cfg(config_file, opts)
    cfg.TEST.TILES = tuple(tiles or cfg.TEST.TILES)
    return Predictor(cfg, **more)


def run_cfg(run_dir: str | Path) -> CfgNode:
    """Return the config in a run's best checkpoint, with `MODEL.WEIGHTS` set to that checkpoint.

    Raises: CheckpointError: when there is no checkpoint, or it does not carry its config.
    """
    cfg = carried_cfg(run_dir)
    cfg.MODEL.WEIGHTS = str(_model_file(run_dir))
    return cfg


def _model_file(run_dir: str | Path) -> Path:
    path = Path(run_dir)
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such run folder; give the OUTPUT_DIR of a run.")
    return find_model(path) if path.is_dir() else path


def carried_cfg(run_dir: str | Path) -> CfgNode:
    """Return the config in a run's best checkpoint as it was trained with; see `run_cfg`."""
    weights = _model_file(run_dir)
    facts = CarriedFacts.from_checkpoint(load_checkpoint(weights))
    cfg = get_cfg()
    try:
        if not facts.config:
            raise ValueError("it has none")
        cfg.merge_from_other_cfg(CfgNode.load_cfg(facts.config))
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{weights}: carries no config of this version of persondet ({reason}); use "
            "--config-file with MODEL.WEIGHTS instead."
        ) from error
    return cfg


def _drop_early(model: nn.Module, threshold: float, *, asked: bool) -> None:
    """Let the model drop detections below `threshold` before it computes their masks.

    The config's own threshold stays if it is higher, unless the caller `asked` for a lower one. A
    box suppresses only boxes with lower scores, so the remaining detections do not change.
    """
    for module in model.modules():
        if isinstance(module, FastRCNNOutputLayers):
            # The model keeps scores above its threshold, the predictor also those equal to it.
            low = max(threshold - 1e-6, 0.0)
            module.test_score_thresh = low if asked else max(low, module.test_score_thresh)
