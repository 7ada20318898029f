"""Export a trained model to one ONNX file that runs without PyTorch and Detectron2."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import cli
from progress import Progress


def get_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.build_parser(
        "Export a run's best model to one ONNX file with threshold, classes and masks. The file is "
        "refused unless it detects what the model does, in images of the run's validation split "
        "and in an empty one: boxes within 0.01 px, scores within 0.0001, masks equal in 99.9 % of "
        "the pixels. The table of differences is kept beside the file, as <stem>_agreement.txt.",
        example="python tools/export_model.py --run output/demo --output model.onnx",
    )
    add = cli.adder(parser, "model")
    add("--run", "run folder (its best model) or checkpoint file", "DIR", required=True)
    add = cli.adder(parser, "comparison")
    more = "export whose validation split to compare on (default: the run's)"
    add("--dataset", more, "DIR", default="")
    add("--count", "images of it", "N", type=cli.positive, default=10)
    cli.add_output(parser, "FILE", "the model file, .onnx")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Export, compare, print the table; return the exit code."""
    args = cli.parse(get_parser(), argv)
    from persondet.environment import require_detectron2

    with cli.many_imports():
        require_detectron2()
        from persondet.export import export_model

    with Progress(str(args.output), "images") as progress:
        export_model(
            args.run,
            args.output,
            print,
            dataset=args.dataset,
            count=args.count,
            overwrite=args.overwrite,
            progress=progress,
        )
    print(cli.printable(f"written to {args.output}"))
    return 0


if __name__ == "__main__":
    cli.run(main)
