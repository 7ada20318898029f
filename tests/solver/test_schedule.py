"""From epochs and batch size to steps and rate, and what makes no sense."""

import functools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.config import get_cfg, merge_opts, merge_yaml
from persondet.solver.schedule import resolve_schedule

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@functools.cache
def merged(file):
    cfg = get_cfg()
    merge_yaml(cfg, CONFIGS / file)
    cfg.DATASETS.VAL = ("person_valid",)
    return cfg


def config(*opts, file="Base-PersonMaskRCNN.yaml"):
    cfg = merged(file).clone()
    merge_opts(cfg, [str(word) for word in opts])
    return cfg


def test_epochs_of_50_images_make_sense():
    cfg = config("SOLVER.EPOCHS", 20)
    said = resolve_schedule(cfg, 50)
    solver = cfg.SOLVER
    assert solver.MAX_ITER == 500  # 20 x 50 / 2
    assert solver.STEPS == (333, 450)  # the config's own 2000 and 2700 of 3000
    assert solver.WARMUP_ITERS == 50  # a tenth
    assert cfg.TEST.EVAL_PERIOD == 25  # an epoch
    assert solver.CHECKPOINT_PERIOD == 100  # one every 25 steps would be work
    assert cfg.LOG_PERIOD == 5  # 20 of 25 would leave one row an epoch
    assert not said.warnings
    assert "500 steps of 2 = 20 epochs of 50 images; evaluation every 25 steps" in said.facts[0]
    assert "rate 0.0025: warm-up over 50 steps, then times 0.1 at steps 333 and" in said.facts[1]


@settings(max_examples=20)
@given(
    epochs=st.integers(1, 300),
    images=st.integers(1, 200_000),
    batch=st.sampled_from([1, 2, 3, 8, 16]),
    scheduler=st.sampled_from(["WarmupMultiStepLR", "WarmupCosineLR"]),
    evaluation=st.sampled_from([0, 500]),
)
def test_every_schedule_of_epochs_is_sensible_and_comes_out_of_itself_unchanged(
    epochs, images, batch, scheduler, evaluation
):
    cfg = config(
        *("SOLVER.EPOCHS", epochs, "SOLVER.IMS_PER_BATCH", batch, "TEST.EVAL_PERIOD", evaluation),
        *("SOLVER.LR_SCHEDULER_NAME", scheduler),
    )
    assert not resolve_schedule(cfg, images).warnings
    solver, steps_per_epoch = cfg.SOLVER, images / batch
    assert solver.MAX_ITER - 1 < epochs * steps_per_epoch <= solver.MAX_ITER
    assert min(1_000, solver.MAX_ITER / 10) >= solver.WARMUP_ITERS
    assert all(0 < step < solver.MAX_ITER for step in solver.STEPS)
    assert 1 <= cfg.LOG_PERIOD <= max(1, steps_per_epoch / 5)
    if evaluation:
        period = cfg.TEST.EVAL_PERIOD
        assert min(20, solver.MAX_ITER) <= period <= 10_100
        if 20 <= steps_per_epoch <= 10_000 and period < solver.MAX_ITER:
            evaluations = len(range(period, solver.MAX_ITER, period)) + 1
            assert 0.95 * epochs - 1 <= evaluations <= epochs  # a period is a whole number
            ours = solver.CHECKPOINT_PERIOD
            assert period % ours == 0 or ours % period == 0
    assert min(100, steps_per_epoch) <= solver.CHECKPOINT_PERIOD <= 1_000
    before = cfg.clone()
    resolve_schedule(cfg, images)
    assert cfg == before


def test_a_warm_up_that_never_ends_and_drops_beyond_the_run_are_mended_with_a_warning():
    cfg = config("SOLVER.MAX_ITER", 100, "SOLVER.EARLY_STOPPING.PATIENCE", 1)
    said = resolve_schedule(cfg, 50)
    assert cfg.SOLVER.STEPS == (67, 90)
    assert cfg.SOLVER.WARMUP_ITERS == 10
    assert cfg.TEST.EVAL_PERIOD == 100
    steps, warmup, patience = said.warnings
    assert "SOLVER.STEPS (2000, 2700)" in steps and "drops at steps 67 and 90" in steps
    assert "SOLVER.WARMUP_ITERS is 200" in warmup
    assert "nothing stops the run early" in patience
    assert "evaluation at the end" in said.facts[0]
    assert resolve_schedule(cfg, 50).warnings == (patience,)


def test_drops_out_of_order_or_at_the_very_end_which_detectron2_dies_of_are_mended():
    for steps, kept in (("(700, 500)", (500, 700)), ("(0, 500, 1000)", (500,))):
        cfg = config("SOLVER.MAX_ITER", 1000, "SOLVER.STEPS", steps)
        assert len(resolve_schedule(cfg, 50).warnings) == 1
        assert kept == cfg.SOLVER.STEPS


def test_batch_and_rate_are_scaled_together_once_and_it_is_said():
    cfg = config("SOLVER.IMS_PER_BATCH", 16, "SOLVER.BASE_LR_END", 0.001)
    said = resolve_schedule(cfg, 50)
    assert pytest.approx(0.02) == cfg.SOLVER.BASE_LR  # Detectron2's own for 16 images
    assert pytest.approx(0.008) == cfg.SOLVER.BASE_LR_END
    assert any("0.0025 is meant for batches of 2, so 0.02 for" in line for line in said.facts)
    again = resolve_schedule(cfg, 50)
    assert pytest.approx(0.02) == cfg.SOLVER.BASE_LR
    assert len(again.facts) == 2


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_rates_of_the_configs_stay_as_they_are_written(path):
    cfg = config(file=path.name)
    rate = cfg.SOLVER.BASE_LR
    resolve_schedule(cfg, 300)
    assert rate == cfg.SOLVER.BASE_LR
    assert cfg.SOLVER.REFERENCE_IMS_PER_BATCH == cfg.SOLVER.IMS_PER_BATCH
