"""Training hooks, one file each; their order is set in `persondet/engine/trainer.py`."""

from persondet.engine.hooks.best_checkpoint import BestCheckpointHook
from persondet.engine.hooks.early_stopping import EarlyStoppingHook, StopTraining
from persondet.engine.hooks.event_writer import EventWriterHook
from persondet.engine.hooks.periodic_checkpoint import PeriodicCheckpointHook
from persondet.engine.hooks.progress import ProgressHook
from persondet.engine.hooks.validation_loss import ValidationLossHook
from persondet.engine.hooks.validation_pictures import ValidationPicturesHook

__all__ = [
    "BestCheckpointHook",
    "EarlyStoppingHook",
    "EventWriterHook",
    "PeriodicCheckpointHook",
    "ProgressHook",
    "StopTraining",
    "ValidationLossHook",
    "ValidationPicturesHook",
]
