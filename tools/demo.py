"""The whole main job on the bundled sample: images, training, score, clip, plots, report."""

from __future__ import annotations

from collections.abc import Sequence

import cli


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo's steps and print the table at the end."""
    parser = cli.build_parser(
        "Make the sample, transfer a model from ImageNet to people with frozen layers, "
        "score on the test split, annotate the clip, draw the plots, write the report (HTML and "
        "PDF). About 8 minutes on two CPU cores.",
        example="python tools/demo.py --output output/demo",
    )
    add = cli.adder(parser)
    more = "run folder; an interrupted demo continues, a finished one is replaced"
    add("--output", more, "DIR", default="output/demo")
    add("--sample", "folder of the sample; created if missing", "DIR", default="datasets/sample")
    args = cli.parse(parser, argv)
    from persondet.demo import run_demo, summary
    from persondet.environment import require_detectron2

    require_detectron2()
    results = run_demo(args.output, args.sample, lambda line: print(f"\n== {line}", flush=True))
    print(f"\n{summary(results, args.output)}")
    return 0


if __name__ == "__main__":
    cli.run(main)
