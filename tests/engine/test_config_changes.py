"""Which changes of a config make a resumed run another one."""

import pytest

from persondet.config import get_cfg
from persondet.engine.resumption import config_changes


def changes(*opts, schedule="WarmupMultiStepLR"):
    before = get_cfg()
    before.SOLVER.LR_SCHEDULER_NAME = schedule
    now = before.clone()
    now.merge_from_list(list(opts))
    return list(config_changes(before.dump(), now.dump()))


@pytest.mark.parametrize("key", ["DATALOADER.NUM_WORKERS", "LOG_PERIOD", "TEST.EVAL_PERIOD"])
def test_what_the_steps_do_not_depend_on_is_no_change(key):
    assert changes(key, 7) == []


def test_what_the_steps_depend_on_is_named_with_both_values():
    assert changes("SEED", 7, "SOLVER.IMS_PER_BATCH", 4) == [
        "SEED: -1 → 7",
        "SOLVER.IMS_PER_BATCH: 16 → 4",
    ]


def test_a_longer_run_has_other_rates_along_a_cosine_alone():
    assert changes("SOLVER.MAX_ITER", 50000) == []
    assert changes("SOLVER.MAX_ITER", 50000, schedule="WarmupCosineLR") == [
        "SOLVER.MAX_ITER: 40000 → 50000"
    ]
