"""An export on disk: where it lies, which folders are its splits, what its jsons hold.

Roboflow's layout is read where it lies. Other layouts of COCO (COCO's own, CVAT's, Label Studio's)
are recognised by their jsons; `import` brings them into Roboflow's.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from persondet.data.coco_json import CocoDict, OtherToolError, read_coco
from persondet.errors import DatasetError
from persondet.files import folded, leads_out

logger = logging.getLogger(__name__)

ANNOTATION_FILE = "_annotations.coco.json"
SPLIT_FOLDERS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
"""Our name of a split, and the names that others use for it, in any case."""

Layout = Literal["auto", "roboflow", "coco"]
_SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
_DEEPEST = 5
_MOST_FOLDERS = 2_000
_EXPECTED = (
    "expected a Roboflow export in COCO format: a folder with train/, valid/ and test/ (one is "
    f"enough), each with its images and {ANNOTATION_FILE} (on Roboflow: Download Dataset, format "
    "'COCO' or 'COCO Segmentation', 'zip to computer')"
)


_OTHER_FORMATS = (  # what it is, the files that tell, and what reads it
    ("YOLO's labels", r"/labels/.*\.txt$", "from_yolo"),
    ("Pascal VOC's annotations", r"\.xml$", "from_pascal_voc"),
)


class _NoExportError(DatasetError):
    """There is no json under Roboflow's name; there may be others."""


@dataclass(frozen=True)
class Export:
    """An export as it lies on disk.

    Attributes:
        root: the folder that holds it: the one that was given, or a folder below that.
        folders: split to the folder with the images.
        jsons: split to its json; in Roboflow's layout it lies in the split's folder.
        splits: split to the COCO dict of its json, as it is but for `respelled`.
        respelled: split to the names that differed in form from their files, and the files' names,
            relative to the folder, which `splits` has in their place.
    """

    root: Path
    folders: dict[str, Path]
    jsons: dict[str, Path]
    splits: dict[str, CocoDict]
    respelled: dict[str, dict[str, str]]

    @property
    def changes(self) -> dict[str, int]:
        """The number of names of `respelled` by the code of that fault, without a 0."""
        count = sum(map(len, self.respelled.values()))
        return {"file-name-spelled": count} if count else {}


def read_export(root: str | Path, label: str = "", layout: Layout = "roboflow") -> Export:
    """Find and read the jsons of an export.

    Args:
        root: where to look.
        label: what errors call the export; default `root`.
        layout: `roboflow`, `coco` for any other layout of COCO jsons and images, or `auto` for
            whichever is there.

    Raises: DatasetError: as `find_export` and `read_coco`, or when the layout is another.
    """
    found = root = Path(root)
    try:
        if layout == "coco" and root.is_dir():
            raise _NoExportError(f"{label or root} holds no COCO json.")
        found, folders = find_export(root, label)
        jsons = {}
        for split, folder in folders.items():
            path = folder / ANNOTATION_FILE
            jsons[split] = path, read_coco(path, _called(path, root, label))
    except _NoExportError as error:
        jsons = _other_jsons(root, label)
        if not jsons:
            raise _whose_folder(root, label) or error from None
        if layout == "roboflow":
            first = _called(next(iter(jsons.values()))[0], root, label)
            raise DatasetError(
                f"{first} is COCO, but not in Roboflow's layout; `python tools/prepare_dataset.py "
                "import` brings it into that."
            ) from None
        files = list_files(root)
        folders = {
            split: root / _image_folder(split, file_names(coco), files)
            for split, (_, coco) in jsons.items()
        }
    export = Export(found, folders, {split: path for split, (path, _) in jsons.items()}, {}, {})
    for split, (path, coco) in jsons.items():
        names = file_names(coco)
        means = match_names(names, list_files(folders[split]))
        changed = {name: means[name] for name in names if means.get(name, name) != name}
        export.splits[split], export.respelled[split] = coco, changed
        for image in coco["images"] if changed else ():
            if isinstance(image, dict) and isinstance(name := image.get("file_name"), str):
                image["file_name"] = changed.get(name, name)
        if changed:
            where = _called(path, root, label)
            name, file = next(iter(changed.items()))
            logger.warning(
                "%s: %d of %d images are spelled otherwise than their files (%a is %a); the files' "
                "names are used.",
                *(where, len(changed), len(names), name, file),
            )
    return export


def _called(path: Path, root: Path, label: str) -> str:
    """Return what messages call a file of an export with a label, or without one."""
    return f"{label}: {path.relative_to(root).as_posix()}" if label else str(path)


def match_names(names: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Return which of `files` each name means, for the names that mean one alone.

    A name that is no file means the one that differs only in Unicode form, case, `\\` for `/` or
    percent-escapes; a name that leads out of the folder, or is an address, means the file with its
    last part. A file that two names could mean is nobody's.

    Args:
        names: as a json has them.
        files: relative to the folder of the images, with slashes.
    """
    names, files = list(names), set(files)
    found = {name: name for name in names if name in files}
    for form in (_spelling, lambda name: _spelling(name).rpartition("/")[2]):
        asked, free, taken = defaultdict(list), defaultdict(list), set(found.values())
        for name in names:
            if name not in found and (form is _spelling or leads_out(name) or "://" in name):
                asked[form(name)].append(name)
        for file in files if asked else ():
            if file not in taken:
                free[form(file)].append(file)
        for key, same in asked.items():
            if len(same) == len(free[key]) == 1:
                found[same[0]] = free[key][0]
    return found


def _spelling(name: str) -> str:
    return folded(str(PurePosixPath(unquote(name).replace("\\", "/"))))


def list_files(folder: Path) -> list[str]:
    """Return the files below a folder, relative with slashes, sorted: no hidden ones, no links'."""
    found = []
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        above = "".join(f"{part}/" for part in Path(base).relative_to(folder).parts)
        found += [above + name for name in names if not name.startswith(".")]
    return sorted(found)


# Other layouts


def _other_jsons(root: Path, label: str) -> dict[str, tuple[Path, CocoDict]]:
    """Return split to the COCO json that its name, or its folder's, says is the split's.

    A json that names no split is train's. Of several for one split, the one of instances counts.

    Raises: DatasetError: when two have the same claim, or all jsons are another tool's.
    """
    claims: dict[str, dict[Path, CocoDict]] = defaultdict(dict)
    foreign = None
    for name in list_files(root):
        if name.lower().endswith(".json") and name.count("/") < _DEEPEST:
            try:
                coco = read_coco(root / name, _called(root / name, root, label))
            except OtherToolError as error:
                foreign = error
            except DatasetError:
                pass  # anything may end in .json
            else:
                claims[_split_in(name) or "train"][root / name] = coco
    if foreign and not claims:
        raise foreign
    found = {}
    for split, jsons in claims.items():
        best = [path for path in jsons if "instances" in path.name.lower()] or list(jsons)
        names = " and ".join(_called(path, root, label) for path in best)
        if len(best) > 1:
            raise DatasetError(f"{names} are of the same split ({split}); keep one of them.")
        for path in jsons.keys() - {*best}:
            logger.warning("%s is left out; %s has the split %s.", path.name, names, split)
        found[split] = best[0], jsons[best[0]]
    return {split: found[split] for split in SPLIT_FOLDERS if split in found}


def _split_in(path: str) -> str | None:
    """Return the split that a path names: `annotations/instances_val2017.json` is of valid."""
    words = re.findall("[a-z]+", path.lower())
    return next((_SPLIT_OF[word] for word in reversed(words) if word in _SPLIT_OF), None)


def _image_folder(split: str, names: list[str], files: list[str]) -> str:
    """Return the folder below which most of the images lie, relative to the root."""

    def score(folder: str) -> tuple[int, int, bool, int]:
        inside = [file[len(folder) :] for file in files if file.startswith(folder)]
        means = match_names(names, inside)
        exact = sum(name == file for name, file in means.items())
        return len(means), exact, _split_in(folder) == split, -len(folder)

    folders = {f"{parent}/" for file in files for parent in PurePosixPath(file).parents}
    return max((folder.removeprefix("./") for folder in sorted(folders)), key=score)


def _whose_folder(root: Path, label: str) -> DatasetError | None:
    """Return the sentence about a folder of another tool's labels, None for any other folder."""
    for whose, pattern, reader in _OTHER_FORMATS:
        if any(re.search(pattern, f"/{name}") for name in list_files(root)):
            return DatasetError(
                f"{label or root} is not COCO but {whose}; the package supervision converts it "
                f"(DetectionDataset.{reader}, then as_coco)."
            )
    return None


# Roboflow's layout


def file_names(coco: CocoDict) -> list[str]:
    """Return the file names that a json lists, each once, without those that are no text."""
    names = (image.get("file_name") for image in coco["images"] if isinstance(image, dict))
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and name))


def find_readmes(root: Path) -> list[Path]:
    """Return the README texts in an export's folder: where it comes from, and its licence."""
    paths = sorted(root.iterdir())
    return [p for p in paths if p.name.lower().startswith("readme") and p.suffix == ".txt"]


def copy_readmes(root: Path, target: Path) -> None:
    """Copy the README texts of the export in the folder `root` to the folder `target`."""
    for readme in find_readmes(root):
        if readme.is_file() and not readme.is_symlink():
            shutil.copyfile(readme, target / readme.name)


def find_export(root: str | Path, label: str = "") -> tuple[Path, dict[str, Path]]:
    """Find the one export in a folder: there itself, or up to four folders down.

    `SPLIT_FOLDERS` has the names of the splits, in any case. Splits may be missing as long as one
    is there; empty split folders do not count. A folder with the json itself (a flat export) is the
    split train; folders without a json beside it hold images. The search follows no link. A warning
    names other folders with a json: they are left out.

    Args:
        root: where to look.
        label: what errors call the export; default `root`.

    Returns:
        The folder that holds the export, and a dict from `"train"`, `"valid"`, `"test"` (in this
        order, those that exist) to the folder with the images and `_annotations.coco.json`.

    Raises:
        DatasetError: when `root` is missing, holds no export or several, when a split folder is
            without its json, or when two folders claim to be the same split.
    """
    root, label = Path(root), label or str(root)
    if root.suffix.lower() == ".zip" and root.is_file():
        raise DatasetError(f"{root} is a zip file; unpack it with `prepare_dataset.py import`.")
    if not root.is_dir():
        raise DatasetError(f"{label}: there is no such folder; {_EXPECTED}.")
    try:
        found = _search(root, label)
        if found is not None:
            return found, _splits_of(found, label)
    except OSError as error:
        raise DatasetError(f"{label} cannot be read ({error.strerror or error}).") from None
    raise _NoExportError(f"{label} holds no export; {_EXPECTED}.")


def _search(root: Path, label: str) -> Path | None:
    """Return the highest folder with annotations, None when there is none."""
    level, looked = [root], 0
    for _ in range(_DEEPEST):
        found = [f for f in level if any(map(_has_json, (f, *(s for _, s in _split_folders(f)))))]
        if len(found) > 1:
            names = " and ".join(repr(str(place.relative_to(root))) for place in found[:2])
            raise DatasetError(f"{label} holds several exports, e.g. {names}; give one of them.")
        if found:
            return found[0]
        level = [child for place in level for child in _folders(place) if _may_be_entered(child)]
        looked += len(level)
        if looked > _MOST_FOLDERS:
            break
    return None


def _has_json(folder: Path) -> bool:
    return os.path.lexists(folder / ANNOTATION_FILE)


def _splits_of(root: Path, label: str) -> dict[str, Path]:
    splits: dict[str, Path] = {}
    flat = _has_json(root)
    for split, folder in _split_folders(root):
        if not _has_json(folder):
            if flat or not any(folder.iterdir()):
                continue
            raise DatasetError(
                f"{label}: {folder.name}/ has no {ANNOTATION_FILE}; export the dataset as COCO, or "
                "remove the folder if the split is not wanted."
            )
        if flat or split in splits:
            first = "the folder itself" if flat else f"{splits[split].name}/"
            raise DatasetError(
                f"{label}: {first} and {folder.name}/ cannot both be splits ({split}); keep one of "
                "them."
            )
        splits[split] = folder
    if flat:
        return {"train": root}
    for folder in _folders(root):
        if _has_json(folder) and folder not in splits.values():
            logger.warning("%s: %s/ is left out; its name is no split's.", label, folder.name)
    return {split: splits[split] for split in SPLIT_FOLDERS if split in splits}


def _split_folders(root: Path) -> list[tuple[str, Path]]:
    """Return (split, folder) of the folders, or links to folders, with the name of a split."""
    known = [(_SPLIT_OF.get(path.name.lower()), path) for path in _folders(root)]
    return [(split, path) for split, path in known if split is not None]


def _folders(place: Path) -> list[Path]:
    with os.scandir(place) as entries:
        return sorted(Path(entry.path) for entry in entries if entry.is_dir())


def _may_be_entered(folder: Path) -> bool:
    hidden = folder.name.startswith((".", "__"))
    return not hidden and not folder.is_symlink() and os.access(folder, os.R_OK | os.X_OK)
