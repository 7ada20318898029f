"""persondet: fine-tune, evaluate and run person detectors with Detectron2.

The public names below are imported at their first use (PEP 562): `import persondet` costs nothing
and needs no Detectron2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public name → the module that defines it.
_MODULE_OF = {
    "AlbumentationsDatasetMapper": "persondet.data.dataset_mapper",
    "BestCheckpointHook": "persondet.engine.hooks",
    "EarlyStoppingHook": "persondet.engine.hooks",
    "Predictor": "persondet.inference.predictor",
    "SafeDetectionCheckpointer": "persondet.checkpoint",
    "Trainer": "persondet.engine",
    "ValidationLossHook": "persondet.engine.validation",
    "VideoReader": "persondet.video",
    "VideoWriter": "persondet.video",
    "add_persondet_config": "persondet.config",
    "annotate_video": "persondet.video",
    "build_augmentation": "persondet.data.augmentation",
    "build_evaluator": "persondet.evaluation",
    "build_report": "persondet.report.build",
    "clean_coco": "persondet.data.clean",
    "find_leaks": "persondet.data.leaks.find",
    "freeze_modules": "persondet.modeling.freeze",
    "load_events": "persondet.report.events",
    "parameter_table": "persondet.modeling.freeze",
    "register_roboflow_coco": "persondet.data.register",
    "setup": "persondet.engine",
    "split_coco": "persondet.data.split",
    "validate_coco": "persondet.data.inspect.dataset",
}

__all__ = ["__version__", *sorted(_MODULE_OF)]

if TYPE_CHECKING:  # for editors and type checkers, which do not run __getattr__
    from persondet.checkpoint import SafeDetectionCheckpointer as SafeDetectionCheckpointer
    from persondet.config import add_persondet_config as add_persondet_config
    from persondet.data.augmentation import build_augmentation as build_augmentation
    from persondet.data.clean import clean_coco as clean_coco
    from persondet.data.dataset_mapper import (
        AlbumentationsDatasetMapper as AlbumentationsDatasetMapper,
    )
    from persondet.data.inspect.dataset import validate_coco as validate_coco
    from persondet.data.leaks.find import find_leaks as find_leaks
    from persondet.data.register import register_roboflow_coco as register_roboflow_coco
    from persondet.data.split import split_coco as split_coco
    from persondet.engine import Trainer as Trainer
    from persondet.engine import setup as setup
    from persondet.engine.hooks import BestCheckpointHook as BestCheckpointHook
    from persondet.engine.hooks import EarlyStoppingHook as EarlyStoppingHook
    from persondet.engine.validation import ValidationLossHook as ValidationLossHook
    from persondet.evaluation import build_evaluator as build_evaluator
    from persondet.inference.predictor import Predictor as Predictor
    from persondet.modeling.freeze import freeze_modules as freeze_modules
    from persondet.modeling.freeze import parameter_table as parameter_table
    from persondet.report.build import build_report as build_report
    from persondet.report.events import load_events as load_events
    from persondet.video import VideoReader as VideoReader
    from persondet.video import VideoWriter as VideoWriter
    from persondet.video import annotate_video as annotate_video


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises: InstallationError: when it needs Detectron2, and Detectron2 is not installed.
    """
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(_MODULE_OF[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "detectron2":
            from persondet.environment import require_detectron2

            require_detectron2()
        raise
    globals()[name] = value  # the next use does not come here
    return value


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
