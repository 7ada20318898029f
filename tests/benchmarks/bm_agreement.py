"""Whether a model file detects what its model does, in images of five sizes and odd ones.

python tests/benchmarks/bm_agreement.py --run output/demo
python tests/benchmarks/bm_agreement.py --side 320 --detections 3

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


def random_predictor(folder: Path, side: int, detections: int) -> Predictor:
    """Return the predictor of a ResNet-50 of random weights, saved in `folder`.

    Its frozen batch norms divide by the spread that their input has in a grey noise, so that maps
    neither grow nor fade from layer to layer. Otherwise activations reach thousands, and proposals
    move by a hundred times their size before they are clipped, which in float32 leaves no hundredth
    of a pixel. The threshold leaves so many detections in a first image.

    Source: Mishkin and Matas, "All You Need Is a Good Init", ICLR 2016.
    """
    from detectron2.layers import FrozenBatchNorm2d
    from detectron2.modeling import build_model

    from persondet.checkpoint import SafeDetectionCheckpointer
    from persondet.engine import load_cfg
    from persondet.export import exact_predictor
    from persondet.inference.predictor import Predictor

    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.ROI_HEADS.NUM_CLASSES", "1"]
    opts += ["INPUT.MIN_SIZE_TEST", str(side), "INPUT.MAX_SIZE_TEST", str(2 * side)]
    cfg = load_cfg(CONFIG, opts)
    torch.manual_seed(0)
    model = build_model(cfg).eval()

    def look(norm: FrozenBatchNorm2d, given: tuple[torch.Tensor]) -> None:
        norm.running_var.fill_(float(given[0].var()))

    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    noise = torch.randint(256, (3, side, side), dtype=torch.uint8)
    with torch.no_grad():
        model.backbone(model.preprocess_image([{"image": noise}]).tensor)
    for hook in hooks:
        hook.remove()
    carried = {"config": cfg.dump(), "class_names": ["person"]}
    checkpointer = SafeDetectionCheckpointer(model, str(folder), carried=carried)
    checkpointer.save_model("model_best", iteration=1)
    cfg = exact_predictor(folder).cfg
    _, street = next(images(1))
    (found,) = Predictor(cfg, confidence_threshold=0.0).predict_frames([street])
    return Predictor(cfg, confidence_threshold=float(found.scores[detections - 1]) - 1e-6)


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
    more = "of the latter, in the first image"
    parser.add_argument("--detections", type=int, default=20, help=more)
    parser.add_argument("--count", type=int, default=50)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        if args.run:
            eager = exact_predictor(args.run)
        else:
            eager = random_predictor(home, args.side, args.detections)
        rows = list(agreements(eager, args.count))
    sys.stdout.write(f"{agreement_table(rows)}\n")
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main())
