"""Making AP: the evaluators and the loop that runs a model over a dataset."""

from persondet.evaluation.evaluator import (
    RoboflowCOCOEvaluator,
    build_evaluator,
    evaluate,
    evaluate_and_analyse,
)

__all__ = ["RoboflowCOCOEvaluator", "build_evaluator", "evaluate", "evaluate_and_analyse"]
