"""Serve a page on which a model is tried in the browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import cli


def get_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = cli.build_parser(
        "Serve a page to try a model in the browser, at this computer's own address alone: images "
        "with a threshold to move, clips with their analysis, the run's report and curves. Needs "
        "Gradio (pip install persondet[page]). Ctrl-C ends it, and removes its files.",
        example="python tools/model_page.py --run output/demo\n  "
        "python tools/model_page.py --model model.onnx --clips clips/ --port 8000",
    )
    add = cli.adder(parser, "page")
    more = (
        "clips to pick from: files and folders (default: those in the run folder, and beside its "
    )
    add("--clips", f"{more}dataset)", "PATH", nargs="+", default=[])
    port = cli.number(int, 0, 65535)
    add("--port", "of 127.0.0.1; 0: any that is free", "N", type=port, default=7860)
    add("--max-upload-mb", "largest file", "MB", type=cli.positive, default=500)
    cli.add_model_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Load the model and serve the page until it is interrupted."""
    parser = get_parser()
    args = cli.parse(parser, argv)
    cli.check_model_arguments(parser, args)
    from persondet.environment import require_detectron2
    from persondet.errors import MediaError
    from persondet.page.server import listen, require_gradio, serve

    require_gradio()
    require_detectron2()
    from persondet.inference.predictor import Predictor, load_predictor
    from persondet.page.trials import LOWEST, Trial, clips_in

    clips = clips_in(args.clips)
    server = listen(args.port)
    predictor = load_predictor(
        args.run,
        args.config_file,
        args.opts,
        model=args.model,
        confidence_threshold=args.confidence_threshold,
        least_score=LOWEST,
        tiles=args.tiles,
        threads=1,  # several frames of a clip at once instead
    )
    if not args.clips and args.run and isinstance(predictor, Predictor):
        beside = Path(predictor.cfg.DATASETS.ROBOFLOW.ROOT).parent
        for folder in (args.run, beside):
            with suppress(MediaError):
                clips |= clips_in([folder])
    serve(
        Trial(predictor),
        server,
        run=args.run,
        clips=clips,
        megabytes=args.max_upload_mb,
        announce=lambda address: print(f"the page: {address} (Ctrl-C ends it)", flush=True),
    )
    return 0


if __name__ == "__main__":
    cli.run(main)
