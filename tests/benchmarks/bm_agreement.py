"""Whether a model file detects what its model does, in images of five sizes and odd ones.

python tests/benchmarks/bm_agreement.py --run output/demo
python tests/benchmarks/bm_agreement.py --side 320

Without --run the model is a ResNet-50 of random weights.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

if TYPE_CHECKING:
    from persondet.export import Agreement
    from persondet.inference.predictor import Predictor

CONFIG = "configs/person_mask_rcnn_R_50_FPN.yaml"
SIZES = [(640, 360), (1280, 720), (400, 300), (480, 640), (203, 97)]


def images(count: int, *, large: bool = True) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, uint8 (H, W, 3) BGR): the sample's, of `SIZES`, and after the first odd ones.

    Black, one pixel black and one grey, and if `large` 4000 x 3000 pixels.
    """
    from persondet.sample.export import write_export

    with tempfile.TemporaryDirectory() as folder:
        write_export(folder, {"train": count})
        paths = sorted(Path(folder, "train").glob("*.jpg"))
        for number, (path, size) in enumerate(zip(paths, itertools.cycle(SIZES), strict=False)):
            image = np.asarray(cv2.imread(str(path)))
            yield f"street {number}", np.asarray(cv2.resize(image, size))
            if number == 0:
                yield "black", np.zeros((360, 640, 3), np.uint8)
                yield "one black pixel", np.zeros((1, 1, 3), np.uint8)
                yield "one grey pixel", np.full((1, 1, 3), 200, np.uint8)
                if large:
                    yield "large", np.asarray(cv2.resize(image, (4000, 3000)))


def random_predictor(folder: Path, side: int, threshold: float = 0.5) -> Predictor:
    """Return the predictor of a ResNet-50 of random weights, saved in `folder`.

    It is the model that a training with `MODEL.WEIGHTS ""` starts from.
    """
    from persondet.checkpoint import SafeDetectionCheckpointer
    from persondet.engine import load_cfg
    from persondet.engine.trainer import Trainer
    from persondet.export import exact_predictor
    from persondet.inference.predictor import Predictor

    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.NUM_CLASSES", "1"]
    opts += ["INPUT.MIN_SIZE_TEST", str(side), "INPUT.MAX_SIZE_TEST", str(2 * side)]
    cfg = load_cfg(CONFIG, opts)
    torch.manual_seed(0)
    carried = {"config": cfg.dump(), "class_names": ["person"]}
    model = Trainer.build_model(cfg)
    checkpointer = SafeDetectionCheckpointer(model, str(folder), carried=carried)
    checkpointer.save_model("model_best", iteration=1)
    return Predictor(exact_predictor(folder).cfg, confidence_threshold=threshold)


def agreements(eager: Predictor, count: int, *, large: bool = True) -> Iterator[Agreement]:
    """Export a model and compare it with its file in `count` images and the odd ones.

    Behind the first image nobody is found, by a threshold of 1, and then in others again.
    """
    from persondet.export import compare, write_model
    from persondet.inference.predictor import Predictor
    from persondet.onnx_predictor import OnnxPredictor

    nobody = Predictor(eager.cfg, confidence_threshold=1.0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_model(eager, path)
        exported = OnnxPredictor(path)
        for number, (name, image) in enumerate(images(count, large=large)):
            yield compare(eager, exported, name, image)
            if number == 0:
                exported.confidence_threshold = 1.0
                yield compare(nobody, exported, "nobody", image)
                exported.confidence_threshold = eager.confidence_threshold


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if an image differs."""
    from persondet.export import agreement_table, exact_predictor

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="trained run; without: a ResNet-50 of random weights")
    parser.add_argument("--side", type=int, default=800, help="shorter side, of the latter")
    parser.add_argument("--threshold", type=float, default=0.5, help="of the latter")
    parser.add_argument("--count", type=int, default=50)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if args.run:
            eager = exact_predictor(args.run)
        else:
            eager = random_predictor(home, args.side, args.threshold)
        rows = list(agreements(eager, args.count))
    sys.stdout.write(f"{agreement_table(rows)}\n")
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
