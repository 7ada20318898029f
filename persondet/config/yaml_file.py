"""Reading a YAML config and the files that its `_BASE_` leads to, running nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from detectron2.config import CfgNode

from persondet.errors import ConfigError


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
