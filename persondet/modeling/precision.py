"""In which type and memory layout the model computes."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from detectron2.config import CfgNode
from torch import nn


def resolve_device(name: str) -> str:
    """Return the device that `MODEL.DEVICE` means: `auto` is a GPU where one can be used."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


def resolve_dtype(cfg: CfgNode) -> torch.dtype:
    """Return the type of the forward pass by `SOLVER.AMP`: float32 where mixed precision is off.

    `auto` takes bfloat16 where the device multiplies it natively (GPUs since Ampere, CPUs with
    AVX512-BF16 or AMX), float16 on older GPUs, and float32 on other CPUs.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return torch.float32
    if cfg.SOLVER.AMP.DTYPE != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            cfg.SOLVER.AMP.DTYPE
        ]
    if resolve_device(cfg.MODEL.DEVICE).startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def autocast(cfg: CfgNode) -> AbstractContextManager[None]:
    """Return the autocast context of the forward pass, for training and for inference alike."""
    dtype = resolve_dtype(cfg)
    device_type = torch.device(resolve_device(cfg.MODEL.DEVICE)).type
    return torch.autocast(device_type, dtype=dtype, enabled=dtype != torch.float32)


def set_memory_format(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Put the model's convolutions into channels-last layout when `MODEL.CHANNELS_LAST` says so."""
    if cfg.MODEL.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
    return model


def _cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
