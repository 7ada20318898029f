"""What tools share: flags of configs and models, and how errors become exit codes.

Standard library only, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

EXIT_CODES = "exit codes: 0 done, 1 findings, 2 bad input, 3 partial result, 130 interrupted"


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Wraps the description, keeps the example's lines, and names defaults that say something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, "", False, []) or "(default" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return super()._fill_text(text, width, indent)
        return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def _explained(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "epilog": f"example:\n  {example}\n\n{EXIT_CODES}",
        "formatter_class": _Formatter,
        "allow_abbrev": False,
    }


def build_parser(description: str, *, example: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows defaults, an example and the exit codes."""
    return argparse.ArgumentParser(**_explained(description, example))


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    description: str,
    *,
    example: str,
) -> argparse.ArgumentParser:
    """Return the parser of a sub-command; the first sentence of its description lists it."""
    first = description.partition(". ")[0].rstrip(".")
    return commands.add_parser(name, help=first, **_explained(description, example))


def adder(parser: argparse._ActionsContainer, title: str = "") -> Callable[..., None]:
    """Return `add(name, help, metavar=None, **more)` for the arguments of `parser`, or a new group.

    A flag without a metavar is a switch; `more` goes to argparse.
    """
    group = parser.add_argument_group(title) if title else parser

    def add(name: str, text: str, metavar: Any = None, **more: Any) -> None:
        if metavar is not None:
            more["metavar"] = metavar
        elif "choices" not in more:
            more["action"] = "store_true"
        group.add_argument(name, help=text, **more)

    return add


def add_output(parser: argparse.ArgumentParser, metavar: str, text: str, **more: Any) -> None:
    """Add `--output` (required) and `--overwrite` to `parser`."""
    add = adder(parser, "output")
    add("--output", text, metavar, required=True, **({"type": Path} | more))
    add("--overwrite", "replace an existing output")


def add_config_arguments(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add `--config-file`, `--opts KEY VALUE …` and trailing `KEY VALUE …` to `parser`."""
    add = adder(parser, "config")
    add("--config-file", "YAML config", "FILE", required=required, default="")
    rest: dict[str, Any] = {"metavar": "KEY VALUE", "nargs": argparse.REMAINDER, "default": []}
    more = "config overrides; the last flag of the line, as in Detectron2's demo"
    add("--opts", more, dest="opts_flag", **rest)
    add("opts", "config overrides at the end of the line, as in Detectron2's train_net", **rest)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--run`, `--model`, `--confidence-threshold` and the config flags to `parser`."""
    add = adder(parser, "model")
    more = "run folder (its best model) or checkpoint file, instead of --config-file"
    add("--run", more, "DIR", default="")
    more = "file of tools/export_model.py, instead (pip install persondet[onnx])"
    add("--model", more, "FILE", default="")
    more = "VISUALIZATION.SCORE_THRESH, else the model's, else 0.5"
    more = f"drop detections below it (default: {more})"
    add("--confidence-threshold", more, "SCORE", type=share)
    more = "look at overlapping tiles too, for small and far people (default: TEST.TILES)"
    add("--tiles", more, ("COLUMNS", "ROWS"), nargs=2, type=int, choices=range(1, 17))
    add_config_arguments(parser)


def add_drawing_arguments(parser: argparse.ArgumentParser, title: str) -> None:
    """Add what to draw, for clips and images."""
    add = adder(parser, title)
    add("--no-masks", "do not draw masks")
    add("--no-labels", "do not draw class, score and, in clips, track")
    add("--no-count", "do not draw the number of people in view")
    add("--no-boxes", "do not draw boxes")


def add_hiding_arguments(parser: argparse.ArgumentParser) -> Callable[..., None]:
    """Add how to hide people, for clips and images; return the group's `add`."""
    add = adder(parser, "hiding people")
    more = "hide people in the result; then it shows and the records hold no masks"
    add("--anonymize", more, choices=("pixelate", "blur", "fill"))
    add("--part", "what of them to hide (default: person)", choices=("person", "head"))
    more = "hide detections from this score on, also weaker ones than are shown (default: 0.05)"
    add("--anonymize-threshold", more, "SCORE", type=share)
    add("--keep-masks", "keep the masks in the records, and draw them")
    return add


def hiding_options(
    parser: argparse.ArgumentParser, args: argparse.Namespace
) -> dict[str, Any] | None:
    """Return the `HideOptions` that the flags ask for by name, or None.

    Ends with a usage error for flags that need `--anonymize` and come without it.
    """
    exempt = getattr(args, "exempt", None)
    asked = {"part": args.part, "threshold": args.anonymize_threshold, "exempt": exempt}
    chosen = {name: value for name, value in asked.items() if value is not None}
    if args.anonymize is None:
        if chosen or args.keep_masks:
            parser.error(
                "--part, --except, --anonymize-threshold and --keep-masks go with --anonymize"
            )
        return None
    if exempt and args.no_tracking:
        parser.error("--except names tracks, and --no-tracking makes none; leave one out")
    chosen |= {"exempt": tuple(sorted(set(exempt)))} if exempt else {}
    return {"style": args.anonymize, "masks": args.keep_masks, **chosen}


def add_annotation_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the annotation of a clip depends on: its part, the output's quality, people."""
    moment: dict[str, Any] = {"metavar": "TIME", "type": clip_time}
    count: dict[str, Any] = {"metavar": "N", "type": positive}
    add = adder(parser, "part of a clip")
    add("--start", "first moment: 90, 1:30 or 0:01:30.5 (default: the beginning)", **moment)
    add("--end", "end of the part, exclusive (default: the end of the clip)", **moment)
    add("--stride", "annotate every n-th frame (default: VIDEO.STRIDE)", **count)
    add("--max-frames", "stop after this many frames (default: all)", **count)
    add = adder(parser, "annotated clip")
    more = "0 (lossless; many players and browsers cannot play it) to 51 (worst; default: 20)"
    add("--crf", f"H.264 quality from {more}", "N", type=number(int, 0, 51))
    add("--save-mot", "write MOT-challenge text (.txt) too")
    add("--no-tracking", "do not follow people from frame to frame")
    more = "lines and zones, see docs/analysis.md: draw them with their counts; video_demo.py also "
    more += "writes their analysis into <stem of the output>_analysis/"
    add("--areas", more, "YAML", type=Path)
    more = "give people who come back after up to a minute their number again; reads the clip twice"
    add("--relink", more)
    add_drawing_arguments(parser, "people")
    add = add_hiding_arguments(parser)
    more = "leave these people visible: track numbers, as an annotated clip shows them"
    add("--except", more, "TRACK", nargs="+", type=positive, dest="exempt")
    add("--mute", "leave out the sound")


def annotation_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, Any]:
    """Return the options of `AnnotationOptions` that the flags ask for.

    Ends with a usage error where `--end` is not after `--start`, or MOT text has no tracks.
    """
    start = args.start or Fraction(0)
    if args.end is not None and args.end <= start:
        parser.error(f"--end {float(args.end):g} must be later than --start {float(start):g}")
    if args.save_mot and args.no_tracking:
        parser.error("--save-mot writes tracks, and --no-tracking makes none; leave one out")
    if args.areas and args.no_tracking:
        parser.error("--areas counts tracks, and --no-tracking makes none; leave one out")
    if args.areas and not args.areas.is_file():
        parser.error(f"--areas {args.areas} is no file")
    if args.relink and args.no_tracking:
        parser.error("--relink joins tracks, and --no-tracking makes none; leave one out")
    if args.relink and args.model:
        parser.error(
            "--relink compares what people look like, which an exported model does not say; name "
            "the run that it comes from with --run"
        )
    names = ("start", "end", "stride", "max_frames", "crf", "save_mot", "mute", "relink", "areas")
    chosen = {name: getattr(args, name) for name in names}
    chosen["hiding"] = hiding_options(parser, args)
    switches = ("tracking", "masks", "labels", "count", "boxes")
    return chosen | {name: not getattr(args, f"no_{name}") for name in switches}


_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)")


def clip_time(text: str) -> Fraction:
    """Return seconds, exact: `text` is seconds, minutes:seconds or hours:minutes:seconds."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90, 1:30 or 0:01:30.5")
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + Fraction(seconds)


def check_model_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a usage error unless one of `--run`, `--model` and `--config-file` is given."""
    if sum(map(bool, (args.run, args.model, args.config_file))) != 1:
        parser.error(
            "give a trained run with --run DIR, an exported model with --model FILE, or a config "
            "with --config-file FILE"
        )
    if args.opts and not args.config_file:
        parser.error("KEY VALUE overrides go with --config-file; a model carries its own config")
    if args.model and args.tiles:
        parser.error("--tiles goes with --run; an exported model sees whole images")


def number(kind: Callable[[str], Any], least: float, most: float = 1e9) -> Callable[[str], Any]:
    """Return a type for argparse: `int` or `float` from `least` to `most`."""

    def read(text: str) -> Any:
        value = kind(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return value

    read.__name__ = getattr(kind, "__name__", "number")  # for "invalid int value"
    return read


positive, share = number(int, 1), number(float, 0, 1)


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse `argv` and join the two styles of overrides into `args.opts`."""
    args = parser.parse_args(argv)
    if hasattr(args, "opts_flag"):
        # Trailing pairs swallow a later --opts, and the other way round: both are pairs.
        args.opts = [word for word in (*args.opts, *args.opts_flag) if word != "--opts"]
        del args.opts_flag
        if args.opts and args.opts[0] == "--":
            args.opts = args.opts[1:]
        stray = [word for word in args.opts[::2] if word.startswith("-")]
        if stray or len(args.opts) % 2:
            word = stray[0] if stray else args.opts[-1]
            parser.error(f"overrides are KEY VALUE pairs after the flags; cannot use {word!r}")
    return args


def command_words(script: str, argv: Sequence[str] | None) -> list[str]:
    """Return the words of the command line, as they would be typed again."""
    if argv is None:
        return [*sys.orig_argv]
    return ["python", os.path.relpath(script), *argv]


def printable(text: str) -> str:
    """Return a sentence as a terminal may show it: names in it come from strangers."""
    from persondet.text import printable as printable_text

    return printable_text(text, 1500)


@contextmanager
def many_imports() -> Iterator[None]:
    """Import PyTorch and what is built on it in four fifths of the time.

    Millions of objects are made that all stay. Python's collector would search them for garbage
    again and again, now and during the work; it is paused, and then told to leave them alone.
    """
    if "torch" in sys.modules:  # the process had its start, and may have garbage by now
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def show_log() -> None:
    """Show what the package reports while it works, plainly, on standard error."""
    log = logging.getLogger("persondet")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)


def set_environment() -> None:
    """Set what libraries read once, when they are imported, unless the user has set it."""
    # OpenMP's threads spin by default. Beside another process on the same cores, each of the many
    # short waits in a forward pass then costs a time slice.
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # oneDNN keeps what it has prepared for 1,024 layers and shapes, each with memory of its own.
    # Images of many sizes fill that; a step on images of one size needs fewer than 256.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    # albumentations asks the network for a newer release when it is imported.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def run(main: Callable[[Sequence[str] | None], int | None]) -> None:
    """Call `main` with the command line and exit: one sentence and a code for bad input."""
    set_environment()
    try:
        from persondet.environment import quiet_upstream
        from persondet.errors import PersondetError
    except ModuleNotFoundError:
        print(
            "error: persondet is not installed; run `make install`, or `pip install -e .`",
            file=sys.stderr,
        )
        sys.exit(2)
    try:
        quiet_upstream()
        code = main(None) or 0
    except PersondetError as error:
        wrong = "" if error.exit_code == 130 else "error: "
        print(f"{wrong}{printable(str(error))}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has gone: no error of ours, and nothing left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)
