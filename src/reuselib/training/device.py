"""Where networks run: the device that accelerate would pick, and the way back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def target_device() -> torch.device:
    """The accelerator of this machine, or the CPU; an accelerate state that exists already decides."""
    import torch
    from accelerate.state import PartialState

    if PartialState._shared_state:
        return PartialState().device
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    return torch.accelerator.current_accelerator() or torch.device("cpu")


@contextmanager
def placed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Keep `module` on `device` within, then bring it back to where it was."""
    first = next(module.parameters(), None)
    home = device if first is None else first.device
    if home == device or home.type == device.type == "cpu":
        yield
        return
    module.to(device)
    try:
        yield
    finally:
        module.to(home)
