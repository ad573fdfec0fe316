from __future__ import annotations

import pytest
import torch

from reuselib.errors import TrainingError
from reuselib.training import precision
from reuselib.training.precision import resolve

pytestmark = pytest.mark.usefixtures("native_precision")
CPU = torch.device("cpu")


def test_auto_is_bf16_exactly_where_the_cpu_has_instructions_for_it() -> None:
    from pathlib import Path

    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "flags" not in flags:
        pytest.skip("this system does not list its instructions")
    native = "avx512_bf16" in flags or "amx_bf16" in flags

    assert precision.multiplies_bf16(CPU) == native
    assert resolve("auto", CPU) == ("bf16" if native else "fp32")


def test_bf16_by_name_is_refused_where_it_would_be_imitated() -> None:
    if precision.multiplies_bf16(CPU):
        assert resolve("bf16", CPU) == "bf16"
    else:
        with pytest.raises(TrainingError, match="does not multiply bf16"):
            resolve("bf16", CPU)


def test_fp32_is_always_there_and_fp16_needs_a_gpu() -> None:
    assert resolve("fp32", CPU) == "fp32"
    with pytest.raises(TrainingError, match="fp16 was asked for on a cpu"):
        resolve("fp16", CPU)
    with pytest.raises(TrainingError, match="unknown precision 'int3'"):
        resolve("int3", CPU)
