"""The wheel of Detectron2 that `install_detectron2.py` makes: its source, its mends, its bytes.

Standard library only, no network, no pip: files in, a wheel out, the same bytes each time.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION = "0.6+b7ff946"
SOURCE = "labgym==3.1.2"
SOURCE_SHA256 = "a2900cff8a3fb508e1975f19b5f9abd9f261966db87b0c332697fb4138c1cb2b"
SOURCE_PREFIX = "LabGym.detectron2"
# Of the tree with its import name given back and before the mends: upstream's own bytes.
TREE_SHA256 = "a2eaa5c16a6baa35be2af9efbfd4a440de4119a6945adf3eb220b43b6f71f51a"
DIST_INFO = f"detectron2-{VERSION}.dist-info"

# PyTorch is left out, as upstream leaves it out: the build that fits the machine is the user's.
REQUIREMENTS = (
    "Pillow>=7.1",
    "black",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.1.11",
    "matplotlib",
    "numpy",
    "omegaconf>=2.1,<2.4",
    "packaging",
    "pycocotools>=2.0.2",
    "setuptools<81",  # detectron2.model_zoo imports pkg_resources, which 81 and later lack
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)


@dataclasses.dataclass(frozen=True)
class Mend:
    """One line of the pinned commit that today's Python or numpy refuses, and its replacement."""

    file: str
    old: str
    new: str
    reason: str


MENDS = (
    Mend(
        "detectron2/layers/mask_ops.py",
        "mask = np.array(mask, copy=False)",
        "mask = np.asarray(mask)",
        "numpy 2 refuses copy=False where a copy is needed",
    ),
    Mend(
        "detectron2/data/common.py",
        "self._rng.sample(self._fallback_candidates, k=1)",
        "self._rng.sample(list(self._fallback_candidates), k=1)",
        "Python 3.11 refuses to sample from a set, so a mapper that returned None crashed",
    ),
)


def read_tree(wheel: Path) -> dict[str, bytes]:
    """Return the Detectron2 files of the pinned wheel: name (`detectron2/…`) to bytes.

    Import lines and names in strings are turned back from `LabGym.detectron2` to `detectron2`.
    """
    root = SOURCE_PREFIX.replace(".", "/") + "/"
    prefix = SOURCE_PREFIX.encode()
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(root) and name.endswith((".py", ".yaml")):
                target = "detectron2/" + name[len(root) :]
                files[target] = archive.read(name).replace(prefix, b"detectron2")
    return files


def tree_digest(files: Mapping[str, bytes]) -> str:
    """Return one SHA-256 over the names and contents of `files`, whatever their order."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def mend(files: Mapping[str, bytes], mends: Sequence[Mend] = MENDS) -> dict[str, bytes]:
    """Return `files` with each mend made once and a notice under the first line of its file.

    Raises: ValueError: when a file does not hold the line to mend exactly once.
    """
    result = dict(files)
    for change in mends:
        text = result.get(change.file, b"").decode()
        if text.count(change.old) != 1:
            raise ValueError(f"{change.file} does not hold `{change.old}` exactly once")
        head, _, body = text.partition("\n")
        notice = f"# Changed for persondet: {change.reason}."
        text = f"{head}\n{notice}\n{body.replace(change.old, change.new)}"
        result[change.file] = text.encode()
    return result


def wheel_metadata() -> str:
    """Return the METADATA of the wheel: where it comes from, what was changed, what is missing."""
    changes = "\n".join(
        f"- `{change.file}`: `{change.old}` became `{change.new}` ({change.reason})."
        for change in MENDS
    )
    requirements = "\n".join(f"Requires-Dist: {requirement}" for requirement in REQUIREMENTS)
    return f"""Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2, the Python part: object detection and segmentation on PyTorch.
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Classifier: License :: OSI Approved :: Apache Software License
Requires-Python: >=3.8
{requirements}
Description-Content-Type: text/markdown

The Python part of Detectron2 at its commit b7ff946 of 2024-01-26, as carried by the wheel of
{SOURCE}, with the import name given back, packed by persondet's `tools/install_detectron2.py`.

Files changed since that commit, each marked in its second line:

{changes}

Not in it: the compiled part (rotated boxes, deformable convolution, the C++ COCOeval).
"""


def build_wheel(files: Mapping[str, bytes], license_text: bytes, folder: Path) -> Path:
    """Write `files` as an installable wheel into `folder`; the same input gives the same bytes."""
    tag = "Wheel-Version: 1.0\nGenerator: persondet\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members = {name: files[name] for name in sorted(files)}
    members[f"{DIST_INFO}/LICENSE"] = license_text
    members[f"{DIST_INFO}/METADATA"] = wheel_metadata().encode()
    members[f"{DIST_INFO}/WHEEL"] = tag.encode()
    members[f"{DIST_INFO}/top_level.txt"] = b"detectron2\n"
    record = []
    for name, data in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record.append(f"{name},sha256={digest},{len(data)}\n")
    record.append(f"{DIST_INFO}/RECORD,,\n")
    members[f"{DIST_INFO}/RECORD"] = "".join(record).encode()

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"detectron2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=(2024, 1, 26, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return path
