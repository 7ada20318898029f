"""Install Detectron2 without a compiler, from the copy of it that a pinned wheel carries.

Detectron2 publishes no wheels for today's Python and PyTorch, and its source needs a C++ compiler.
The wheel of LabGym carries a full copy of Detectron2's Python part; this tool takes the copy out,
gives it back its own import name, checks it against a digest, mends the two lines that today's
Python and numpy refuse, and installs it as a proper wheel that pip can show, check and uninstall.

Standard library only: it runs before anything is installed. PyTorch is never installed or changed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cli
from detectron2_wheel import (
    SOURCE,
    SOURCE_SHA256,
    TREE_SHA256,
    VERSION,
    build_wheel,
    mend,
    read_tree,
    tree_digest,
)

LICENSE = Path(__file__).resolve().parent.parent / "LICENSE"
# What a model is trained with. OpenCV is not in it: a Detectron2 without it works, and stays.
PROBE = """
import importlib.util, json
import detectron2
import detectron2.data, detectron2.engine, detectron2.modeling
print(json.dumps({"version": detectron2.__version__, "file": detectron2.__file__,
                  "compiled": importlib.util.find_spec("detectron2._C") is not None}))
"""
# The version that pip knows, empty when it knows none.
PIP_VERSION = """
from importlib.metadata import PackageNotFoundError, version
try:
    print(version("detectron2"))
except PackageNotFoundError:
    pass
"""


class StepError(Exception):
    """A step failed: which one, why, and what to try next."""

    def __init__(self, step: str, problem: str, hint: str) -> None:
        super().__init__(f"the step '{step}' failed: {problem}\n  try next: {hint}")


@contextlib.contextmanager
def step(name: str, hint: str) -> Iterator[None]:
    """Print the step's name, and turn what the disk or a file refuses into a `StepError`."""
    print(f"  {name} ...", flush=True)
    try:
        yield
    except zipfile.BadZipFile as error:
        raise StepError(name, f"the wheel is damaged ({error})", hint) from error
    except OSError as error:
        raise StepError(name, str(error), advice(str(error)) or hint) from error


def advice(text: str) -> str:
    """Return what to try next for a failure that pip or the system reports as `text`, or ""."""
    lower = text.lower()
    if "do not match the hashes" in lower:
        return (
            "the index delivered another file than the pinned one; empty pip's cache with "
            "`pip cache purge`, or check which index pip uses with `pip config list`."
        )
    if "no space left" in lower or "disk quota" in lower:
        return "free some disk space, or point TMPDIR at a disk that has some."
    if "externally-managed-environment" in lower or "externally managed" in lower:
        return "create a virtual environment first (`python3 -m venv .venv`) and use its python."
    if "permission denied" in lower or "read-only file system" in lower:
        return "run it with the python of a virtual environment that you may write to."
    if "no matching distribution" in lower or "connection" in lower or "retries" in lower:
        return (
            "check the network and pip's index, or fetch the wheel elsewhere with "
            f"`pip download --no-deps --ignore-requires-python {SOURCE}` and give it with "
            "--from-file."
        )
    return ""


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a fresh process; the current folder stays off the import path."""
    command = [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_pip(name: str, *arguments: str) -> None:
    """Run pip; raise `StepError` with the last lines that pip wrote when it fails."""
    result = run_python("-m", "pip", "--disable-pip-version-check", *arguments)
    if result.returncode:
        text = (result.stderr or result.stdout).strip()
        lines = [line for line in text.splitlines() if not line.startswith(("WARNING", "[notice]"))]
        problem = "pip says:\n    " + "\n    ".join(lines[-6:] or ["nothing"])
        raise StepError(
            name, problem, advice(text) or f"run pip yourself: pip {' '.join(arguments)}"
        )


def last_line(text: str) -> str:
    """Return the last line of what a process wrote: the exception of a traceback."""
    return (text.strip().splitlines() or ["no reason given"])[-1]


def find_detectron2() -> tuple[dict[str, object] | None, str]:
    """Import Detectron2 in a fresh process.

    Returns its version, file and `compiled`, or None and the reason why it cannot be imported.
    """
    result = run_python("-W", "ignore", "-c", PROBE)
    if result.returncode:
        return None, last_line(result.stderr)
    return json.loads(last_line(result.stdout)), ""


def refuse_foreign(reason: str) -> None:
    """Raise `StepError` when pip knows another build of Detectron2, one that fails to import.

    It may have taken its owner an hour to compile, and a small thing to mend.
    """
    version = run_python("-c", PIP_VERSION).stdout.strip()
    if version and version != VERSION:
        raise StepError(
            "look at this interpreter",
            f"Detectron2 {version} is installed and cannot be imported ({reason})",
            "repair that build, or replace it with --force.",
        )


def check_interpreter() -> None:
    """Raise `StepError` unless this interpreter has pip and PyTorch."""
    name = "look at this interpreter"
    with step(name, "use another python."):
        if run_python("-m", "pip", "--version").returncode:
            raise StepError(
                name,
                f"{sys.executable} has no pip",
                "`python -m ensurepip`, or on Debian and Ubuntu `apt install python3-pip "
                "python3-venv` and then a virtual environment.",
            )
        result = run_python("-c", "import torch, torchvision")
        if result.returncode:
            raise StepError(
                name,
                f"PyTorch cannot be imported ({last_line(result.stderr)})",
                "install the PyTorch build that fits your machine first, for example with "
                "`pip install torch torchvision`.",
            )


def download_source(folder: Path) -> Path:
    """Fetch the pinned wheel into `folder` through pip and return its path."""
    name = f"download {SOURCE}"
    with step(name, "check the network."):
        pins = folder / "source.txt"
        pins.write_text(f"{SOURCE} --hash=sha256:{SOURCE_SHA256}\n", encoding="utf-8")
        flags = ("--no-deps", "--ignore-requires-python", "--require-hashes", "--only-binary=:all:")
        run_pip(name, "download", *flags, "-d", str(folder), "-r", str(pins))
        return next(folder.glob("*.whl"))


def check_source(wheel: Path) -> dict[str, bytes]:
    """Return the tree of `wheel` after both digests, the wheel's and the tree's, have matched."""
    name = f"take Detectron2 out of {wheel.name}"
    hint = f"download {SOURCE} afresh; a file with another digest is never installed."
    with step(name, hint):
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest != SOURCE_SHA256:
            raise StepError(name, f"the file has SHA-256 {digest}, not {SOURCE_SHA256}", hint)
        files = read_tree(wheel)
        if tree_digest(files) != TREE_SHA256:
            problem = f"the tree has digest {tree_digest(files)}, not {TREE_SHA256}"
            raise StepError(name, problem, "restore this tool from its repository.")
        return files


def make_wheel(source: Path, folder: Path) -> Path:
    """Check the pinned wheel `source`, mend its Detectron2, and write it as a wheel to `folder`."""
    files = check_source(source)
    name = "mend and build the wheel"
    with step(name, "check that the folder can be written."):
        try:
            return build_wheel(mend(files), LICENSE.read_bytes(), folder)
        except ValueError as error:
            raise StepError(name, str(error), "restore this tool from its repository.") from error


def install(wheel: Path, constraint: Path | None) -> None:
    """Install `wheel` and what it requires with pip, and import it from where it went."""
    name = "install the wheel with pip"
    # With pinned versions the build tools are pinned too: use those that are installed.
    pins = ["--no-build-isolation", "-c", str(constraint)] if constraint else []
    with step(name, "run it with the python of a virtual environment."):
        present = run_python("-c", PIP_VERSION).stdout.strip()
        run_pip(name, "install", *pins, str(wheel))
        if present:  # a damaged or forced one: pip takes the same version for done
            run_pip(name, "install", "--no-deps", "--force-reinstall", str(wheel))
    name = "import the result"
    with step(name, "run the tool again with --force."):
        found, reason = find_detectron2()
        if not found:
            hint = "install what is missing with pip, then run the tool again with --force."
            raise StepError(name, f"Detectron2 cannot be imported ({reason})", hint)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the command line's flags."""
    parser = cli.build_parser(
        "Install Detectron2 without a compiler; a working one stays as it is.",
        example="python tools/install_detectron2.py",
    )
    parser.add_argument(
        "--force", action="store_true", help="install over a working Detectron2 too"
    )
    parser.add_argument("--from-file", metavar="WHEEL", help=f"{SOURCE} on this disk: no network")
    parser.add_argument(
        "--wheel-only", metavar="DIR", help="write the wheel to DIR, install nothing"
    )
    parser.add_argument("--constraint", metavar="FILE", help="pinned versions of its dependencies")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Install Detectron2 into this interpreter; return the exit code."""
    args = parse_arguments(argv)
    try:
        if not args.wheel_only:
            found, reason = find_detectron2()
            if found and not args.force:
                kind = "with" if found["compiled"] else "without"
                place = Path(str(found["file"])).parent
                print(f"Detectron2 {found['version']} works ({kind} its compiled part): {place}")
                return 0
            print(f"Installing Detectron2 {VERSION} into {sys.prefix}")
            check_interpreter()
            if not args.force:
                refuse_foreign(reason)
        with tempfile.TemporaryDirectory(prefix="detectron2-") as temporary:
            folder = Path(temporary)
            source = Path(args.from_file) if args.from_file else download_source(folder)
            target = Path(args.wheel_only) if args.wheel_only else folder / "built"
            wheel = make_wheel(source, target)
            if args.wheel_only:
                print(f"Wrote {wheel}")
                return 0
            install(wheel, Path(args.constraint) if args.constraint else None)
        print(f"Detectron2 {VERSION} is installed. `pip uninstall detectron2` removes it.")
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # no temporary folder, for example
        print(f"error: {error}; {advice(str(error)) or 'check the disk.'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run it again, nothing is left half done", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
