"""Where and in which precision to compute. The settings `device` and `precision` of params.yaml end here."""

from __future__ import annotations

import contextlib

import torch

from assets.engine import Engine
from assets.errors import UserError


def resolve_device(name: str) -> str:
    """ "auto" is cuda where there is one, then mps, then cpu; any other name must exist on this machine."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = name.partition(":")
    absent = (kind == "cuda" and int(index or 0) >= torch.cuda.device_count()) or (kind == "mps" and not torch.backends.mps.is_available())
    if absent:
        raise UserError(f"device {name!r} is not on this machine ({torch.cuda.device_count()} CUDA devices). Set device: auto or cpu.")
    return name


def device_of(engine: Engine, name: str) -> str:
    """Where the workers of an engine compute, by the setting `name`."""
    if not engine.remote:
        return resolve_device(name)
    if name == "mps" or name.startswith("cuda:"):
        raise UserError(f"device {name!r} is of one machine. With engine.kind ray each worker takes its own: set device: auto.")
    return name if name != "auto" else "cuda" if engine.has_accelerators() else "cpu"


def device_here(engine: Engine, name: str) -> str:
    """Where this process computes by itself, which drives the engine: not on a device that only the workers have."""
    if engine.remote and name.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    return resolve_device(name)


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager[object]:
    """Mixed precision for the towers; losses leave it for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, dtype={"bf16": torch.bfloat16, "fp16": torch.float16}[precision])
