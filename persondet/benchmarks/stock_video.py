"""The stock side of the video benchmark: one frame after the other, as Detectron2's demo does it.

Detectron2, PyTorch and OpenCV only; nothing of this project.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from detectron2.utils.video_visualizer import VideoVisualizer

Predict = Callable[[np.ndarray], dict[str, Any]]


def build_stock_predictor(cfg: CfgNode, score_threshold: float) -> DefaultPredictor:
    """Return Detectron2's predictor, which drops detections below the threshold as its demo does.

    Args:
        cfg: of which only Detectron2's own keys are read.
        score_threshold: from 0 to 1.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
    return DefaultPredictor(cfg)


def stock_paste(result: Instances) -> Instances:
    """Return a raw result (`pred_masks` (N, 1, 28, 28)) with masks of the whole picture."""
    return detector_postprocess(result, *result.image_size)


def stock_draw(visualizer: VideoVisualizer, image: np.ndarray, people: Instances) -> np.ndarray:
    """Return a frame, uint8 (H, W, 3) BGR, with its people drawn in."""
    frame = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = visualizer.draw_instance_predictions(frame, people.to("cpu"))
    return cv2.cvtColor(drawn.get_image(), cv2.COLOR_RGB2BGR)


def stock_annotate(
    source: str, target: str, predict: Predict, metadata: Any, max_frames: int
) -> list[Instances]:
    """Annotate a clip serially, and return the people of each frame.

    Args:
        source: a clip that OpenCV reads.
        target: .mp4; its codec is `mp4v`, the best that pip's OpenCV can write.
        predict: a frame, BGR, to `{"instances": …}`, as `DefaultPredictor` does.
        metadata: with `thing_classes`.
        max_frames: stop after these.
    """
    clip = cv2.VideoCapture(source)
    size = (int(clip.get(cv2.CAP_PROP_FRAME_WIDTH)), int(clip.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
    writer = cv2.VideoWriter(target, code, clip.get(cv2.CAP_PROP_FPS), size)
    visualizer = VideoVisualizer(metadata)
    found: list[Instances] = []
    while len(found) < max_frames:
        read, image = clip.read()
        if not read:
            break
        found.append(predict(image)["instances"])
        writer.write(stock_draw(visualizer, image, found[-1]))
    clip.release()
    writer.release()
    return found
