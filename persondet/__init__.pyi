# The public names and where they lie: read at run time, by editors and by type checkers.
from .checkpoint import SafeDetectionCheckpointer as SafeDetectionCheckpointer
from .config import add_persondet_config as add_persondet_config
from .data.augmentation import build_augmentation as build_augmentation
from .data.clean import clean_coco as clean_coco
from .data.dataset_mapper import AlbumentationsDatasetMapper as AlbumentationsDatasetMapper
from .data.inspect import validate_coco as validate_coco
from .data.leaks.find import find_leaks as find_leaks
from .data.register import register_roboflow_coco as register_roboflow_coco
from .data.split import split_coco as split_coco
from .engine import Trainer as Trainer
from .engine import setup as setup
from .engine.hooks import BestCheckpointHook as BestCheckpointHook
from .engine.hooks import EarlyStoppingHook as EarlyStoppingHook
from .engine.validation import ValidationLossHook as ValidationLossHook
from .evaluation import build_evaluator as build_evaluator
from .inference.predictor import Predictor as Predictor
from .modeling.freeze import freeze_modules as freeze_modules
from .modeling.freeze import parameter_table as parameter_table
from .report.build import build_report as build_report
from .report.events import load_events as load_events
from .video import VideoReader as VideoReader
from .video import VideoWriter as VideoWriter
from .video import annotate_video as annotate_video

__version__: str
