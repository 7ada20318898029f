"""How many images an epoch has."""

from __future__ import annotations

from detectron2.config import CfgNode

from persondet.data.register import image_count


def epoch_size(cfg: CfgNode) -> int:
    """Return how many images the training loader gives in one epoch, over `DATASETS.TRAIN`.

    As `persondet.data.build.build_train_loader` sees them: without those that have no annotation
    where `DATALOADER.FILTER_EMPTY_ANNOTATIONS` says so, and a share of them where the sampler
    takes a subset. Repeats of rare classes do not count.
    """
    annotated = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    count = sum(image_count(name, annotated=annotated) for name in cfg.DATASETS.TRAIN)
    if cfg.DATALOADER.SAMPLER_TRAIN == "RandomSubsetTrainingSampler":
        count = int(count * cfg.DATALOADER.RANDOM_SUBSET_RATIO)
    return count
