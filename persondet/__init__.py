"""persondet: fine-tune, evaluate and run person detectors with Detectron2.

The public names stand in `__init__.pyi` and are imported at their first use (PEP 562, SPEC 1):
`import persondet` costs next to nothing and needs no Detectron2.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

try:
    import lazy_loader
except ModuleNotFoundError:  # of use beside numpy and ONNX Runtime alone: persondet.onnx_predictor
    __all__ = ["__version__"]
else:
    _public, __dir__, _names = lazy_loader.attach_stub(__name__, __file__)
    __all__ = ["__version__", *_names]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises: InstallationError: when it needs Detectron2, and Detectron2 is not installed.
    """
    try:
        return _public(name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "detectron2":
            from persondet.environment import require_detectron2

            require_detectron2()
        raise
