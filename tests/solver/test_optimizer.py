"""Parameter groups and the optimizer."""

import copy
import math

import pytest
import torch
from detectron2.solver import build_lr_scheduler
from torch import nn

from persondet.config import get_cfg, merge_opts
from persondet.solver.optimizer import build_optimizer
from persondet.solver.schedule import resolve_schedule


def model():
    module = nn.Module()
    module.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module.head = nn.Linear(4, 2)
    module.backbone[0].bias.requires_grad = False
    return module


def groups_of(net, *opts):
    cfg = get_cfg()
    merge_opts(cfg, [str(word) for word in ("SOLVER.BASE_LR", 0.01, *opts)])
    optimizer = build_optimizer(cfg, net)
    owners = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    return optimizer, {name: owners[id(p)] for name, p in net.named_parameters() if id(p) in owners}


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_backbone_norms_and_biases_learn_and_decay_as_their_keys_say(name):
    opts = ("SOLVER.OPTIMIZER", name, "SOLVER.WEIGHT_DECAY", 0.1, "SOLVER.WEIGHT_DECAY_NORM", 0.2)
    opts += ("SOLVER.WEIGHT_DECAY_BIAS", 0.3, "SOLVER.BIAS_LR_FACTOR", 2.0)
    opts += ("SOLVER.BACKBONE_LR_FACTOR", 0.5)
    optimizer, group = groups_of(net := model(), *opts)
    assert type(optimizer).__name__ == name
    expected = {
        "backbone.0.weight": (0.005, 0.1),
        "backbone.1.weight": (0.005, 0.2),
        "backbone.1.bias": (0.01, 0.3),  # Detectron2 forgets the backbone's factor here
        "head.weight": (0.01, 0.1),
        "head.bias": (0.02, 0.3),
    }
    assert {n: (g["lr"], g["weight_decay"]) for n, g in group.items()} == expected
    _, wrapped = groups_of(nn.ModuleDict({"module": net}), *opts)  # as DistributedDataParallel
    assert {n: g["lr"] for n, g in wrapped.items()} == {
        f"module.{n}": rate for n, (rate, _) in expected.items()
    }


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_the_optimizer_steps_as_pytorchs_plain_one(name):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 4, 3))
    net.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(net)
    optimizer, _ = groups_of(net, "SOLVER.OPTIMIZER", name, "SOLVER.WEIGHT_DECAY", 0.05)
    common = {"lr": 0.01, "weight_decay": 0.05, "foreach": False}
    if name == "AdamW":
        plain = torch.optim.AdamW(twin.parameters(), **common)
    else:
        plain = torch.optim.SGD(twin.parameters(), momentum=0.9, **common)
    for step in range(4):
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            gradient = torch.randn(ours.shape, generator=torch.Generator().manual_seed(step))
            # Of another memory layout than the weights; the momentum also, as after a resume.
            ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        if step == 2:
            for state in optimizer.state.values():
                for key, value in state.items():
                    state[key] = value.contiguous()
        optimizer.step()
        plain.step()
    for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("kind", "clipped"), [("norm", [0.3, 0.4]), ("value", [0.5, 0.5])])
def test_clipping_is_that_of_each_parameter_before_the_step(kind, clipped):
    keys = {"ENABLED": True, "CLIP_TYPE": kind, "CLIP_VALUE": 0.5}
    opts = [word for key, v in keys.items() for word in (f"SOLVER.CLIP_GRADIENTS.{key}", v)]
    optimizer, _ = groups_of(net := model(), *opts)
    net.head.weight.grad = torch.tensor([[3.0, 4.0, 0, 0], [0, 0, 0, 0]])
    net.head.bias.grad = torch.tensor([0.1, -0.2])
    optimizer.step()
    assert net.head.weight.grad[0, :2].tolist() == pytest.approx(clipped, rel=1e-5)
    assert net.head.bias.grad.tolist() == pytest.approx([0.1, -0.2])


@pytest.mark.parametrize("odd", [0.0, math.inf, math.nan])
def test_clipping_by_norm_is_that_of_pytorch_whatever_a_gradient_holds(odd):
    keys = {"ENABLED": True, "CLIP_TYPE": "norm", "CLIP_VALUE": 0.5}
    opts = [word for key, v in keys.items() for word in (f"SOLVER.CLIP_GRADIENTS.{key}", v)]
    optimizer, _ = groups_of(model(), *opts)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for scale, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, 0.05 * scale)
        parameter.grad.view(-1)[-1] = odd
    expected = [p.grad.clone() for p in parameters]
    for parameter, gradient in zip(parameters, expected, strict=True):
        (twin := torch.nn.Parameter(parameter.detach().clone())).grad = gradient
        torch.nn.utils.clip_grad_norm_(twin, 0.5)
    optimizer.step()
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, equal_nan=True)


def test_small_tensors_are_stepped_on_one_thread_and_nothing_else_is():
    optimizer, _ = groups_of(net := model())
    threads, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        optimizer.register_step_pre_hook(lambda *_: threads.append(torch.get_num_threads()))
        for parameter in net.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert (threads, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_the_rate_follows_a_cosine_to_its_end():
    cfg = get_cfg()
    opts = ["SOLVER.MAX_ITER", 100, "SOLVER.BASE_LR", 1.0, "SOLVER.BASE_LR_END", 0.2]
    opts += ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", 10]
    merge_opts(cfg, [str(word) for word in (*opts, "SOLVER.WARMUP_FACTOR", 0.1)])
    resolve_schedule(cfg, 10)
    optimizer = build_optimizer(cfg, model())
    scheduler, found = build_lr_scheduler(cfg, optimizer), []
    for _ in range(100):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    cosine = [0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * step / 100)) for step in range(100)]
    assert found[10:] == pytest.approx(cosine[10:])
    assert found[:11] == pytest.approx([0.1 + (cosine[10] - 0.1) * step / 10 for step in range(11)])
