"""Create .venv with the pinned dependencies, Detectron2 and the project; done before: do nothing.

Standard library only: it is what `make` runs first on a fresh machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cli

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("setup.py", "constraints.txt", "tools/install_detectron2.py", "tools/detectron2_wheel.py")
OLDEST = (3, 11)
# GB, measured: installed, downloaded to TMPDIR on the way, kept in pip's cache. Linux gets
# PyTorch with CUDA; elsewhere there is no such build.
LINUX_GB, OTHER_GB = (7.0, 3.5, 3.5), (1.5, 0.5, 0.5)


class EnvironmentFailure(Exception):
    """The environment cannot be made: why, and what to do about it, in one sentence."""


def check_python() -> None:
    """Raise unless this interpreter is new enough and can make environments with pip."""
    version = "{}.{}".format(*sys.version_info[:2])
    if sys.version_info < OLDEST:
        raise EnvironmentFailure(
            f"Python {version} is too old; install 3.11 or newer and name it, "
            "for example `PYTHON=python3.12 make demo`."
        )
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise EnvironmentFailure(
            f"this Python cannot make environments; on Debian and Ubuntu run "
            f"`apt install python{version}-venv`, then run make again."
        )


def check_disk(venv: Path, gigabytes: float | None) -> bool:
    """Return whether there is room for pip's cache beside the packages.

    What shares a disk is added up; `gigabytes` replaces the measured need (0: no check).

    Raises: EnvironmentFailure: not even what is installed would fit.
    """
    installed, temporary, cached = LINUX_GB if sys.platform == "linux" else OTHER_GB
    cache = Path(os.environ.get("PIP_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home())
    needs = [(venv, installed if gigabytes is None else gigabytes)]
    if short := _shortage(needs):
        raise EnvironmentFailure(
            f"{short}; free some space, or set DISK_GB to what your own index's build takes."
        )
    if gigabytes is not None:
        return True
    needs.append((Path(tempfile.gettempdir()), temporary))
    if short := _shortage(needs):
        print(f"{short}, unless the packages are on this disk already.", flush=True)
    return not _shortage([*needs, (cache, cached)])


def _shortage(needs: Sequence[tuple[Path, float]]) -> str | None:
    """Return how a disk falls short of what the folders on it need in GB, or None."""
    disks: dict[int, tuple[Path, float]] = {}
    for path, need in needs:
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        device = existing.stat().st_dev
        disks[device] = (existing, disks.get(device, (existing, 0.0))[1] + need)
    for folder, need in disks.values():
        free = shutil.disk_usage(folder).free / 1e9
        if free < need:
            return (
                f"{folder}: {free:.1f} GB are free, and PyTorch with what it needs takes {need:.1f}"
            )
    return None


def digest(venv: Path) -> str:
    """Return what an environment depends on: the pins, the tools, the Python, the place."""
    parts = [*(ROOT.joinpath(name).read_bytes() for name in INPUTS)]
    parts.append(repr((sys.version_info[:3], str(venv.resolve()))).encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def venv_version(python: Path) -> tuple[int, ...] | None:
    """Return the version of an environment's interpreter, or None when it or its pip is broken."""
    code = "import pip, sys; print(*sys.version_info[:2])"
    try:
        result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(map(int, result.stdout.split()))


def make(venv: Path, gigabytes: float | None) -> None:
    """Make the environment at `venv`, or leave it when its inputs are those it was made from."""
    python, stamp = venv / "bin" / "python", venv / "persondet.sha256"
    key = digest(venv)
    same_python = venv_version(python) == sys.version_info[:2]
    if same_python and stamp.exists() and stamp.read_text() == key:
        return
    check_python()
    fresh = not same_python or not any(venv.glob("lib*/python*/site-packages/torch"))
    cache = check_disk(venv, gigabytes) if fresh else True
    version = "{}.{}.{}".format(*sys.version_info[:3])
    if not same_python:
        if venv.exists():
            print(
                f"{venv}: has another Python, or is unfinished; creating it again with {version}.",
                flush=True,
            )
        run(sys.executable, "-m", "venv", "--clear", venv)
    print(
        f"{venv}: installing the pinned packages (some minutes and gigabytes at first)", flush=True
    )
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    pip += [] if cache else ["--no-cache-dir"]
    run(*pip, "-c", "constraints.txt", "setuptools", "wheel")
    run(*pip, "--no-build-isolation", "-c", "constraints.txt", "-e", ".[dev]")
    run(python, "tools/install_detectron2.py", "--constraint", "constraints.txt")
    run(python, "-m", "pip", "check")
    stamp.write_text(key)


def run(*command: str | Path) -> None:
    """Run a command in the project's folder; raise with its name when it fails."""
    try:
        subprocess.run(command, cwd=ROOT, check=True)
    except subprocess.CalledProcessError as error:
        words = " ".join(map(str, command[1:]))
        raise EnvironmentFailure(
            f"`python {words}` failed with the message above; repair that and run make again: "
            "it continues where it stopped."
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Make the environment; return the exit code."""
    parser = cli.build_parser(
        "Create .venv with everything the project needs; do nothing if it is there already.",
        example="python3 tools/make_environment.py",
    )
    parser.add_argument("--venv", metavar="DIR", default=str(ROOT / ".venv"), help="where")
    parser.add_argument("--disk-gb", type=float, metavar="N", help="free space to ask for; 0: none")
    args = parser.parse_args(argv)
    try:
        make(Path(args.venv), args.disk_gb)
    except (EnvironmentFailure, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run make again to continue", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
