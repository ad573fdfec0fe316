from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reuselib.errors import SourceError, TrainingError
from reuselib.training.plan import FitPlan, Optimizer, Schedule
from reuselib.training.zero import Zero, read_zero, refuse_contradictions

PLAN = FitPlan(batch_size=32, gradient_accumulation_steps=2, learning_rate=1e-3)
TEMPLATE = {
    "fp16": {"enabled": "auto", "loss_scale": 0, "loss_scale_window": 1000, "hysteresis": 2},
    "bf16": {"enabled": "auto"},
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"},
    },
    "scheduler": {
        "type": "WarmupDecayLR",
        "params": {"warmup_min_lr": 0, "warmup_max_lr": "auto", "warmup_num_steps": "auto"},
    },
    "zero_optimization": {
        "stage": 3,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "offload_param": {"device": "none"},
        "overlap_comm": True,
        "contiguous_gradients": True,
        "sub_group_size": 1e9,
        "reduce_bucket_size": "auto",
        "stage3_max_live_parameters": 1e9,
        "stage3_gather_16bit_weights_on_model_save": True,
    },
    "activation_checkpointing": {"partition_activations": False, "cpu_checkpointing": False},
    "flops_profiler": {"enabled": True, "profile_step": 1},
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "steps_per_print": 2000,
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": "auto",
    "wall_clock_breakdown": False,
}
"""Such as is handed from one project to the next."""


def read(tmp_path: Path, said: Any, **variables: str) -> Zero:
    file = tmp_path / "zero.json"
    file.write_text(said if isinstance(said, str) else json.dumps(said))
    return read_zero({"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(file), **variables})


def with_stage(**fields: Any) -> dict[str, Any]:
    return {"zero_optimization": {"stage": 2}, **fields}


def test_a_template_goes_along_with_any_recipe(tmp_path: Path) -> None:
    found = read(tmp_path, TEMPLATE)

    assert (found.stage, found.offload) == (3, True)
    assert [demand.field for demand in found.demands] == ["scheduler.type"]
    refuse_contradictions(found.demands, PLAN, "bf16", 2)


@pytest.mark.parametrize(
    ("said", "variables", "stage", "offload"),
    [
        (None, {}, 2, False),
        (None, {"ZERO_STAGE": "3", "OFFLOAD_PARAM_DEVICE": "cpu"}, 3, True),
        (None, {"ZERO_STAGE": "1", "ZERO3_INIT": "true"}, 1, False),
        # what the file says counts, unless it leaves it to the configuration that names it
        ({"stage": 1, "offload_optimizer": {"device": "none"}}, {"ZERO_STAGE": "3"}, 1, False),
        ({"stage": "auto"}, {"ZERO_STAGE": "3"}, 3, False),
        ({"allgather_partitions": True}, {}, 0, False),
        ({"stage": 2, "cpu_offload": True}, {}, 2, True),
    ],
)
def test_where_things_lie(
    tmp_path: Path, said: Any, variables: dict[str, str], stage: int, offload: bool
) -> None:
    told = {f"ACCELERATE_DEEPSPEED_{name}": value for name, value in variables.items()}
    found = read_zero(told) if said is None else read(tmp_path, {"zero_optimization": said}, **told)

    assert (found.stage, found.offload) == (stage, offload)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"zero_optimization": {"stage": 4}}, "stage: 4"),
        (
            {"zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}},
            "offload_param.device: nvme",
        ),
        (
            {"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}},
            "offload_optimizer_device: cpu.*at least ZeRO stage 1",
        ),
        (
            {"zero_optimization": {"stage": 3, "zero_quantized_weights": True}},
            "zero_optimization.zero_quantized_weights: true",
        ),
        (
            {"zero_optimization": {"stage": 3, "zero_hpz_partition_size": 8}},
            "zero_hpz_partition_size: 8",
        ),
        (with_stage(fp16={"enabled": True}), "fp16.enabled: true.*loss scale"),
        (with_stage(optimizer={"type": "Lion", "params": {}}), "optimizer.type: Lion.*AdamW"),
        (
            with_stage(optimizer={"type": "Adam", "params": {"adam_w_mode": False}}),
            "optimizer.params.adam_w_mode: false",
        ),
        (with_stage(scheduler={"type": "OneCycle"}), "scheduler.type: OneCycle.*WarmupLR"),
        (
            with_stage(activation_checkpointing={"partition_activations": True}),
            "activation_checkpointing.partition_activations: true",
        ),
        (with_stage(pipeline={"stages": 2}), "pipeline.stages: 2"),
        (with_stage(sequence_parallel_size=2), "sequence_parallel_size: 2"),
        (with_stage(communication_data_type="bf16"), "communication_data_type: bf16"),
        (with_stage(train_batch_size="many"), "train_batch_size: many"),
        (
            with_stage(
                compression_training={"weight_quantization": {"shared_parameters": {"enabled": 1}}}
            ),
            "compression_training.weight_quantization.shared_parameters.enabled",
        ),
        # a word that is not known may be one for something that matters
        (with_stage(gradient_cliping=0.5), "gradient_cliping: 0.5"),
    ],
)
def test_what_is_not_done_is_refused_by_name(tmp_path: Path, said: Any, words: str) -> None:
    with pytest.raises(TrainingError) as refused:
        read(tmp_path, said)

    assert re.search(words, str(refused.value), re.DOTALL)


def test_sections_that_are_switched_off_ask_for_nothing(tmp_path: Path) -> None:
    said = with_stage(
        curriculum_learning={"enabled": False, "min_difficulty": 8},
        compression_training={"weight_quantization": {"shared_parameters": {"enabled": False}}},
        fp16={"enabled": False, "initial_scale_power": 16},
    )

    assert read(tmp_path, said) == Zero(2, offload=False)


@pytest.mark.parametrize("name", ["fp16", "fp8"])
def test_a_loss_scale_and_mixtures_are_refused_without_a_file_too(name: str) -> None:
    with pytest.raises(TrainingError, match=f"mixed_precision: {name}"):
        read_zero({"ACCELERATE_MIXED_PRECISION": name})
    with pytest.raises(TrainingError, match="moe_layer_cls_names: Experts"):
        read_zero({"ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": "Experts"})


@pytest.mark.parametrize("said", ["{", "[]", "{}", '{"zero_optimization": 3}'])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, said: str) -> None:
    with pytest.raises(SourceError, match=r"zero\.json"):
        read(tmp_path, said)
    with pytest.raises(SourceError, match=r"missing\.json"):
        read_zero({"ACCELERATE_DEEPSPEED_CONFIG_FILE": str(tmp_path / "missing.json")})


SAME = with_stage(
    train_batch_size=32,
    train_micro_batch_size_per_gpu=8,
    gradient_accumulation_steps=2,
    gradient_clipping=1.0,
    bf16={"enabled": True},
    optimizer={
        "type": "AdamW",
        "params": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0},
    },
    scheduler={
        "type": "WarmupLR",
        "params": {"warmup_max_lr": 1e-3, "warmup_num_steps": 10, "total_num_steps": 50},
    },
)


def test_what_says_the_same_as_the_recipe_is_fine(tmp_path: Path) -> None:
    found = read(tmp_path, SAME, ACCELERATE_MIXED_PRECISION="bf16")
    plan = replace(
        PLAN, max_steps=50, schedule=Schedule(lr_scheduler_type="constant", warmup_steps=10)
    )

    refuse_contradictions(found.demands, plan, "bf16", 2)
    assert len(found.demands) == 14
    with pytest.raises(TrainingError, match=r"train_micro_batch_size_per_gpu: 8.*micro-batch: 4"):
        refuse_contradictions(found.demands, plan, "bf16", 4)


@pytest.mark.parametrize(
    ("said", "plan", "words"),
    [
        ({"train_batch_size": 64}, PLAN, "train_batch_size: 64, .* batch_size: 32"),
        ({"gradient_accumulation_steps": 1}, PLAN, "steps: 1, .* gradient_accumulation_steps: 2"),
        ({"gradient_clipping": 0.5}, PLAN, "gradient_clipping: 0.5, .*max_grad_norm: 1"),
        ({"gradient_clipping": 0.0}, PLAN, "gradient_clipping: null, .*max_grad_norm: 1"),
        (
            {"gradient_clipping": 1.0},
            replace(PLAN, optimizer=Optimizer(max_grad_norm=None)),
            "gradient_clipping: 1, .*max_grad_norm: null",
        ),
        (
            {"optimizer": {"type": "adamw", "params": {"betas": [0.9, 0.95]}}},
            PLAN,
            "betas: 0.9, 0.95, .*betas: 0.9, 0.999",
        ),
        ({"scheduler": {"type": "WarmupLR"}}, PLAN, "type: constant, .*type: linear"),
        ({"bf16": {"enabled": True}}, PLAN, "bf16.enabled: bf16, .*precision: fp32"),
    ],
)
def test_both_values_are_named_where_they_differ(
    tmp_path: Path, said: Any, plan: FitPlan, words: str
) -> None:
    found = read(tmp_path, with_stage(**said))

    with pytest.raises(TrainingError, match=words):
        refuse_contradictions(found.demands, plan, "fp32", 1)


def test_fields_of_the_accelerate_configuration_are_held_against_the_recipe() -> None:
    found = read_zero(
        {
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2",
            "ACCELERATE_GRADIENT_CLIPPING": "auto",
            "ACCELERATE_MIXED_PRECISION": "bf16",
        }
    )

    refuse_contradictions(found.demands, PLAN, "bf16", 1)
    with pytest.raises(TrainingError, match="mixed_precision: bf16") as refused:
        refuse_contradictions(found.demands, PLAN, "fp32", 1)
    assert "`mixed_precision: no`" in refused.value.fix
