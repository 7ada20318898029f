"""Checkpoints: saved whole or not at all, loaded without running anything they contain."""

from persondet.checkpoint.checkpointer import SafeDetectionCheckpointer

__all__ = ["SafeDetectionCheckpointer"]
