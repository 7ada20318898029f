"""Draw ground truth beside augmented samples as a contact sheet."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cli

# --split → the key of DATASETS that names its datasets.
SPLITS = {"train": "TRAIN", "valid": "VAL", "test": "TEST"}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the sheet and print its path; return the exit code."""
    parser = cli.build_parser(
        "Draw images of a dataset: each row shows the annotated image on the left and"
        " augmented training samples beside it. Needs no model.",
        example="python tools/visualize_data.py --dataset datasets/person --output sheet.png\n  "
        "python tools/visualize_data.py --config-file configs/person_mask_rcnn_R_50_FPN.yaml "
        "--output sheet.png DATASETS.ROBOFLOW.ROOT datasets/person",
    )
    add = cli.adder(parser, "what to draw")
    add("--dataset", "Roboflow export, instead of the config's", "DIR", default="")
    more = "pipeline of configs/augmentations/ or a YAML file, instead of the config's"
    add("--augmentation", more, "NAME", default="")
    add("--split", "which split", choices=list(SPLITS), default="train")
    add("--images", "rows", "N", type=cli.positive, default=6)
    add("--versions", "augmented versions per row", "N", type=cli.positive, default=3)
    more = "draw what `prepare_dataset.py clean` changes instead, before beside after"
    add("--cleaning", more)
    cli.add_output(parser, "FILE", "PNG or JPEG")
    cli.add_config_arguments(parser)
    args = cli.parse(parser, argv)
    if args.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"--output must end in .png or .jpg, not {args.output.suffix!r}")

    opts = list(args.opts)
    if args.dataset:
        opts += ["DATASETS.ROBOFLOW.ROOT", args.dataset]
    if args.augmentation:
        opts += ["INPUT.ALBUMENTATIONS.PIPELINE", args.augmentation]
    from persondet.files import refuse_existing

    refuse_existing(args.output, overwrite=args.overwrite)
    draw = draw_cleaning if args.cleaning else draw_sheet
    print(draw(args, opts))
    return 0


def draw_cleaning(args: argparse.Namespace, opts: Sequence[str]) -> Path | str:
    """Write the sheet of what cleaning changes; return its path, or that it changes nothing."""
    from persondet.data.clean import changed_images
    from persondet.data.image_file import write_image
    from persondet.engine.defaults import export_root, load_cfg
    from persondet.visualization.sheets import CleanedImage, cleaning_sheet, evenly_spaced

    cfg = load_cfg(args.config_file, opts)
    keys = cfg.DATASETS.ROBOFLOW
    changed = changed_images(export_root(cfg), args.split, classes=keys.CLASSES, masks=keys.MASKS)
    if not changed:
        return f"{export_root(cfg)}: cleaning changes no box and no mask of {args.split}"
    shown = evenly_spaced(changed, args.images)
    rows = [CleanedImage(c.path, c.before, c.after, c.origins, ", ".join(c.codes)) for c in shown]
    sheet = cleaning_sheet(rows)
    return write_image(args.output, sheet)


def draw_sheet(args: argparse.Namespace, opts: Sequence[str]) -> Path:
    """Write the sheet that `args` asks for, with the config overrides `opts`; return its path."""
    from detectron2.data import get_detection_dataset_dicts

    from persondet.data.dataset_mapper import AlbumentationsDatasetMapper
    from persondet.data.image_file import write_image
    from persondet.engine.defaults import load_cfg, register_datasets
    from persondet.errors import DatasetError
    from persondet.visualization.sheets import evenly_spaced, ground_truth_sheet

    cfg = load_cfg(args.config_file, opts)
    with tempfile.TemporaryDirectory() as scratch:  # no run is made: keep nothing but the sheet
        cfg.OUTPUT_DIR = scratch
        datasets = register_datasets(cfg)
        names = cfg.DATASETS[SPLITS[args.split]]
        if not names:
            raise DatasetError(f"the dataset has no {args.split} split; choose another --split.")
        dicts = get_detection_dataset_dicts(names, filter_empty=False)
    if datasets is not None and not args.config_file:
        cfg.MODEL.MASK_ON = datasets.has_masks  # no model is named: draw what there is
    sheet = ground_truth_sheet(
        evenly_spaced(dicts, args.images),
        AlbumentationsDatasetMapper(cfg, is_train=True),
        datasets.classes if datasets is not None else (),
        versions=args.versions,
        seed=max(0, cfg.SEED),
        image_format=cfg.INPUT.FORMAT,
    )
    return write_image(args.output, sheet)


if __name__ == "__main__":
    cli.run(main)
