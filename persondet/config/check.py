"""Merging files and overrides into the config, and the rules between keys.

Every mistake becomes one sentence that names the key and what would have worked. YAML is read with
its safe loader, so nothing in a config runs.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import yaml
from detectron2.config import CfgNode

from persondet.config.defaults import get_cfg
from persondet.environment import config_folder
from persondet.errors import ConfigError

CHOICES: dict[str, tuple[object, ...]] = {
    "DATASETS.ROBOFLOW.MASKS": ("auto", "polygon", "bitmask", "box", "none"),
    "INPUT.FORMAT": ("BGR", "RGB"),
    "MODEL.BACKBONE.FREEZE_AT": (0, 1, 2, 3, 4, 5),
    "MODEL.TIMM.NORM": ("FrozenBN", "BN"),
    "SOLVER.OPTIMIZER": ("SGD", "AdamW"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("norm", "value"),
    "SOLVER.AMP.DTYPE": ("auto", "float32", "bfloat16", "float16"),
    "SOLVER.BEST_CHECKPOINT.MODE": ("max", "min"),
    "SOLVER.LR_SCHEDULER_NAME": (
        "WarmupMultiStepLR",
        "WarmupCosineLR",
        "WarmupStepWithFixedGammaLR",
    ),
}
AT_LEAST: dict[str, float] = {
    "SOLVER.IMS_PER_BATCH": 1,
    "SOLVER.MAX_ITER": 1,
    "SOLVER.EPOCHS": 0,
    "SOLVER.REFERENCE_IMS_PER_BATCH": 0,
    "SOLVER.EARLY_STOPPING.PATIENCE": 0,
    "SOLVER.EARLY_STOPPING.MIN_DELTA": 0,
    "SOLVER.BASE_LR": 0,
    "SOLVER.BACKBONE_LR_FACTOR": 0,
    "SOLVER.CHECKPOINT_KEEP": 1,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "DATALOADER.NUM_WORKERS": 0,
    "TEST.EVAL_PERIOD": 0,
    "TEST.VAL_LOSS.MAX_BATCHES": 0,
    "INPUT.ALBUMENTATIONS.MIN_VISIBILITY": 0,
    "INPUT.ALBUMENTATIONS.MIN_BOX_SIZE": 0,
    "VISUALIZATION.SCORE_THRESH": 0,
    "VIDEO.BATCH_SIZE": 0,
    "VIDEO.STRIDE": 1,
    "LOG_PERIOD": 1,
}
AT_MOST: dict[str, float] = {
    "INPUT.ALBUMENTATIONS.MIN_VISIBILITY": 1,
    "VISUALIZATION.SCORE_THRESH": 1,
    "SEED": 2**32 - 1,
}


def merge_yaml(cfg: CfgNode, config_file: str | Path) -> None:
    """Merge a YAML file and its `_BASE_` chain into `cfg`, in place, with the safe loader.

    Args:
        config_file: a path; where there is no such file, the config of that name that comes with
            the package, with or without `configs/` before it.

    Raises: ConfigError: when a file is missing, is not plain YAML, or has an unknown key.
    """
    path = _config_path(config_file)
    if not path.is_file():
        known = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"that folder has {', '.join(known)}" if known else "check the path"
        raise ConfigError(f"{path}: there is no such config file; {hint}.")
    try:
        loaded = load_yaml(path)
        if loaded.get("VERSION", cfg.VERSION) != cfg.VERSION:
            raise ConfigError(
                f"{path}: VERSION is {loaded['VERSION']}, an older layout of "
                f"Detectron2's keys; write it with VERSION {cfg.VERSION}."
            )
        cfg.merge_from_other_cfg(CfgNode(loaded))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a plain YAML file ({_one_line(error)}).") from error
    except OSError as error:  # of the file or of a base
        raise ConfigError(f"{path}: {error.filename} cannot be read ({error.strerror}).") from error
    except KeyError as error:
        raise ConfigError(f"{path}: {_unknown_key(cfg, error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: its _BASE_ leads back to itself; remove it.") from error
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {_one_line(error)}.") from error


def _config_path(config_file: str | Path) -> Path:
    path = Path(config_file)
    if path.is_absolute() or path.is_file() or ".." in path.parts:
        return path
    packaged = config_folder() / Path(*path.parts[path.parts[:1] == ("configs",) :])
    return packaged if packaged.is_file() else path


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Merge `[KEY, VALUE, …]` of a command line into `cfg`, in place.

    Raises: ConfigError: when a key is unknown or a value is of another type.
    """
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        try:
            cfg.merge_from_list([key, value])
        except KeyError as error:
            raise ConfigError(f"command line: {_unknown_key(cfg, error, key)}") from error
        except (AssertionError, AttributeError, TypeError, ValueError, SyntaxError) as error:
            known = dict(leaves(cfg))
            if key not in known:
                raise ConfigError(f"command line: {_unknown_key(cfg, error, key)}") from error
            raise ConfigError(
                f"command line: {key} is {known[key]!r} now, and {value!r} is of another type."
            ) from error


def check_cfg(cfg: CfgNode) -> None:
    """Check values that are wrong whatever the data: choices, ranges, and keys that disagree.

    Raises: ConfigError: naming the key, its value and what would have worked.
    """
    known = dict(leaves(cfg))
    for key, choices in CHOICES.items():
        if known[key] not in choices:
            listed = ", ".join(map(str, choices))
            raise ConfigError(f"config: {key} is {known[key]!r}; choose one of {listed}.")
    for bounds, word, worse in ((AT_LEAST, "least", operator.lt), (AT_MOST, "most", operator.gt)):
        for key, bound in bounds.items():
            if worse(known[key], bound):
                raise ConfigError(f"config: {key} is {known[key]}; it must be at {word} {bound}.")
    if not cfg.DATASETS.ROBOFLOW.NAME or "/" in cfg.DATASETS.ROBOFLOW.NAME:
        raise ConfigError("config: DATASETS.ROBOFLOW.NAME must be a plain name such as 'person'.")
    if cfg.INPUT.CROP.ENABLED:
        raise ConfigError(
            "config: INPUT.CROP is Detectron2's own cropping, which does nothing here; put a crop "
            "into INPUT.ALBUMENTATIONS.PIPELINE, such as BBoxSafeRandomCrop in 'crowd'."
        )
    if cfg.INPUT.RANDOM_FLIP != "horizontal":
        raise ConfigError(
            f"config: INPUT.RANDOM_FLIP is {cfg.INPUT.RANDOM_FLIP!r}, but it does nothing here; "
            "leave it alone, and choose in INPUT.ALBUMENTATIONS.PIPELINE whether and how to flip."
        )
    tiles = cfg.TEST.TILES
    whole = all(type(count) is int and 1 <= count <= 16 for count in tiles)
    if len(tiles) not in (0, 2) or not whole:
        raise ConfigError(
            f"config: TEST.TILES is {tiles!r}; give columns and rows from 1 to 16, as (2, 2), or "
            "() for none."
        )
    _check_timm(cfg)
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupCosineLR" and (
        not solver.BASE_LR or not 0 <= solver.BASE_LR_END <= solver.BASE_LR
    ):
        raise ConfigError(
            f"config: SOLVER.BASE_LR_END is {solver.BASE_LR_END} and SOLVER.BASE_LR "
            f"{solver.BASE_LR}; a cosine leads from a rate above 0 down to a lower one."
        )
    if not cfg.OUTPUT_DIR:
        raise ConfigError("config: OUTPUT_DIR is empty; name the folder of the run.")
    metric = cfg.SOLVER.BEST_CHECKPOINT.METRIC
    if metric != "auto" and not re.fullmatch(r"(bbox|segm)/AP(50|75|s|m|l|-.+)?", metric):
        raise ConfigError(
            f"config: SOLVER.BEST_CHECKPOINT.METRIC is {metric!r}; use 'auto', 'bbox/AP', "
            "'segm/AP', or one of their columns such as 'bbox/AP50'."
        )
    if metric.startswith("segm/") and not cfg.MODEL.MASK_ON:
        raise ConfigError(
            f"config: SOLVER.BEST_CHECKPOINT.METRIC is {metric!r}, but MODEL.MASK_ON is False; "
            "use 'bbox/AP'."
        )


def _check_timm(cfg: CfgNode) -> None:
    backbone, name = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.TIMM.NAME
    if bool(name) != (backbone == "build_timm_fpn_backbone"):
        raise ConfigError(
            f"config: MODEL.TIMM.NAME is {name!r} and MODEL.BACKBONE.NAME {backbone!r}; a timm "
            "model needs its name and build_timm_fpn_backbone, any other backbone an empty name."
        )
    if not name:
        return
    import timm  # a second to import, for these configs only

    architecture = name.partition(".")[0]
    known = timm.list_models()
    if architecture not in known:
        close = difflib.get_close_matches(architecture, known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else "timm.list_models() names them all."
        raise ConfigError(f"config: MODEL.TIMM.NAME is {name!r}, no model of timm's; {hint}")
    if "." in name and name not in timm.list_models(f"{architecture}.*", pretrained=True):
        tags = ", ".join(timm.list_models(f"{architecture}.*", pretrained=True))
        raise ConfigError(f"config: MODEL.TIMM.NAME is {name!r}; timm has weights for {tags}.")


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of each value in a config, or in YAML that was read."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unknown_key(cfg: CfgNode, error: Exception, key: str = "") -> str:
    # yacs says "Non-existent config key: A.B.C"; a value that is no leaf names the node only.
    name = key or str(error.args[0] if error.args else error).split(": ")[-1].strip("'\"")
    known = [leaf for leaf, _ in leaves(cfg)]
    if any(leaf.startswith(f"{name}.") for leaf in known):
        return f"{name} is a group of keys; give one of its keys, such as {name}.…"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if not close:
        tail = name.rsplit(".", 1)[-1]
        close = [leaf for leaf in known if leaf.rsplit(".", 1)[-1] == tail][:1]
    hint = f"did you mean {close[0]}?" if close else "the keys are in persondet/config/defaults.py."
    return f"{name} is no config key; {hint}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def training_anchors(config_file: str | Path) -> dict[str, Any]:
    """Return what the boxes of a dataset are held against.

    Returns: `sizes` (sides of the anchors in pixels, rising), `shortest_edge` (the middle one of
    `INPUT.MIN_SIZE_TRAIN`) and `longest_edge` (`INPUT.MAX_SIZE_TRAIN`), in pixels.

    Raises: ConfigError: when the file cannot be used.
    """
    cfg = get_cfg()
    merge_yaml(cfg, config_file)
    edges = sorted(cfg.INPUT.MIN_SIZE_TRAIN)
    return {
        "sizes": sorted({float(s) for level in cfg.MODEL.ANCHOR_GENERATOR.SIZES for s in level}),
        "shortest_edge": edges[len(edges) // 2],
        "longest_edge": cfg.INPUT.MAX_SIZE_TRAIN,
    }


class _LocalFiles(CfgNode):
    @classmethod
    def _open_cfg(cls, filename: str) -> IO[str]:
        # Detectron2 would fetch an address, and run on whatever it finds there today.
        if "://" in filename:
            raise ConfigError(
                f"{filename}: _BASE_ names an address; download the file, look at it, and name it."
            )
        return open(filename, encoding="utf-8")


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Return the keys of a YAML config, those of its `_BASE_` chain included.

    Every file is read with YAML's safe loader: a tag such as `!!python/object` is an error. A base
    is a file of this machine, absolute, below `~`, or relative to the file that names it.

    Raises: ConfigError: when a file is not made of keys and values, or a base is an address.
    yaml.YAMLError, OSError, UnicodeDecodeError, RecursionError: as reading raises them.
    """
    try:
        loaded = _LocalFiles.load_yaml_with_base(str(path), allow_unsafe=False)
    except (AssertionError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{path}: a config is made of keys and values, and its _BASE_ names a file or several; "
            f"this one, or one of its bases, is not ({' '.join(str(error).split())})."
        ) from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path}: holds a {type(loaded).__name__}, not keys and values.")
    return loaded
