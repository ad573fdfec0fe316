"""A configuration for DeepSpeed, read: where weights, gradients and moments lie, and what else it says.

The package `deepspeed` is not needed for it. What is said about anything but places is held against the recipe,
which is what gets recorded; what this loop does not do is refused by name. Fields that change neither a place nor a
number, such as the sizes of buckets, have no effect.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from reuselib.errors import SourceError, TrainingError
from reuselib.training.plan import FitPlan
from reuselib.training.zero_fields import DEMANDS, NEUTRAL, NO_EFFECT, ONLY, SCHEDULES

FILE = "ACCELERATE_DEEPSPEED_CONFIG_FILE"
"""Variable that names a JSON file in DeepSpeed's own words."""
PREFIX = "ACCELERATE_DEEPSPEED_"
STAGES = (0, 1, 2, 3)
PLACES = ("none", "cpu")


@dataclass(frozen=True)
class Demand:
    """Something that a recipe says as well."""

    field: str
    """In the configuration."""
    value: Any
    name: str
    """In the recipe."""


@dataclass(frozen=True)
class Zero:
    """Where a DeepSpeed configuration puts what is trained."""

    stage: int
    """What is divided among the processes: from 1 moments, from 2 gradients, from 3 weights."""
    offload: bool
    """Whether the parts lie on the CPU while they are not used."""
    demands: tuple[Demand, ...] = ()


def read_zero(environment: Mapping[str, str]) -> Zero:
    """What `accelerate launch` was configured to have DeepSpeed do.

    Raises:
        TrainingError: a field asks for what this loop does not do.
        SourceError: the file that the configuration names cannot be read.
    """
    name = environment.get(FILE, "none")
    fields = {} if name == "none" else _fields(Path(name))
    stage = _told(fields, "zero_optimization.stage", environment.get(PREFIX + "ZERO_STAGE", "2"))
    if name != "none" and "zero_optimization.stage" not in fields:
        stage = 0  # as DeepSpeed has it
    if str(stage) not in map(str, STAGES):
        raise _refused("zero_optimization.stage", stage, "0, 1, 2 or 3")
    offload = any(
        [
            _is_offloaded(fields, environment, "optimizer"),
            _is_offloaded(fields, environment, "param"),
        ]
    )
    if offload and int(stage) == 0:
        raise _refused("offload_optimizer_device", "cpu", "at least ZeRO stage 1 with it")
    if classes := environment.get(PREFIX + "MOE_LAYER_CLS_NAMES"):
        raise _refused("deepspeed_moe_layer_cls_names", classes)
    for field, value in fields.items():
        _look(field, value)
    return Zero(int(stage), offload, tuple(_demands(fields, environment)))


def refuse_contradictions(
    demands: Sequence[Demand], plan: FitPlan, precision: str, num_processes: int
) -> None:
    """Refuse a configuration that does not say what the recipe says.

    Raises:
        TrainingError: names both values.
    """
    known: dict[str, Any] = {
        "batch_size": plan.batch_size,
        "rows of a process in a micro-batch": plan.batch_size
        / (plan.gradient_accumulation_steps * num_processes),
        "gradient_accumulation_steps": plan.gradient_accumulation_steps,
        "optimizer.max_grad_norm": plan.optimizer.max_grad_norm,
        "precision": precision,
        "learning_rate": plan.learning_rate,
        "optimizer.betas": plan.optimizer.betas,
        "optimizer.eps": plan.optimizer.eps,
        "optimizer.weight_decay": plan.optimizer.weight_decay,
        "schedule.lr_scheduler_type": plan.schedule.lr_scheduler_type,
        "schedule.warmup_steps": plan.schedule.warmup_steps,
        "max_steps": plan.max_steps,
    }
    for demand in demands:
        own = known[demand.name]
        if not _same(demand.value, own):
            free = "no" if demand.field == "mixed_precision" else "auto"
            raise TrainingError(
                f"the DeepSpeed configuration has {demand.field}: {_shown(demand.value)},"
                f" and the recipe {demand.name}: {_shown(own)}",
                expected=f"the same in both, or `{free}` in the configuration: the recipe is what is recorded",
                fix=f"say `{demand.field.split('.')[-1]}: {free}` in the configuration, or change the recipe",
            )


def _fields(file: Path) -> dict[str, Any]:
    """What the file says, by names such as `zero_optimization.stage`; sections that are switched off left out."""
    try:
        said: Any = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"the DeepSpeed configuration {file} cannot be read: {error}",
            expected="a file with JSON",
            fix="correct `deepspeed_config_file` in the accelerate configuration",
        ) from error
    if not _is_section(said) or not _is_section(said.get("zero_optimization")):
        raise SourceError(
            f"the DeepSpeed configuration {file} has no section `zero_optimization`",
            expected='at least {"zero_optimization": {"stage": 0}}',
        )
    if "bfloat16" in said:
        said["bf16"] = said.pop("bfloat16")  # as it was called first
    return dict(_flat(said))


def _is_section(value: Any) -> bool:
    return isinstance(value, dict)


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    if section.get("enabled", True) in NEUTRAL:
        return
    for name, value in section.items():
        if _is_section(value):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _told(fields: Mapping[str, Any], field: str, otherwise: Any) -> Any:
    """What the file says, unless it leaves it to accelerate."""
    value = fields.get(field, "auto")
    return otherwise if value == "auto" else value


def _is_offloaded(fields: Mapping[str, Any], environment: Mapping[str, str], what: str) -> bool:
    field = f"zero_optimization.offload_{what}.device"
    variable = f"{PREFIX}OFFLOAD_{what.upper()}_DEVICE"
    device = _told(fields, field, environment.get(variable, "none")) or "none"
    if device not in PLACES:
        raise _refused(f"offload_{what}.device", device, " or ".join(PLACES))
    former = "cpu_offload" if what == "optimizer" else "cpu_offload_param"
    return device == "cpu" or fields.get(f"zero_optimization.{former}") is True


def _look(field: str, value: Any) -> None:
    """Refuse a field that asks for something else than this loop does."""
    if field == "fp16.enabled":
        raise _fp16(field, value)
    parents = field.split(".")
    if field in DEMANDS or any(".".join(parents[:n]) in NO_EFFECT for n in range(len(parents) + 1)):
        return
    if field in ONLY:
        if str(value).lower() not in [str(each).lower() for each in ONLY[field]]:
            raise _refused(field, value, " or ".join(map(_shown, ONLY[field])))
    elif value not in NEUTRAL and value != [] and value != "":
        raise _refused(field, value)


def _demands(fields: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Demand]:
    mixed = environment.get("ACCELERATE_MIXED_PRECISION", "no").lower()
    if mixed in ("fp16", "fp8"):
        raise _fp16("mixed_precision", mixed)
    # `no` is what accelerate puts there if the user says nothing
    if mixed != "no":
        yield Demand("mixed_precision", mixed, "precision")
    if fields.get("bf16.enabled") is True:
        yield Demand("bf16.enabled", "bf16", "precision")
    for kind, name in SCHEDULES.items():
        if str(fields.get("scheduler.type")).lower() == kind.lower():
            yield Demand("scheduler.type", name, "schedule.lr_scheduler_type")
    variables = {
        "gradient_accumulation_steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
        "gradient_clipping": "ACCELERATE_GRADIENT_CLIPPING",
    }
    for field, name in DEMANDS.items():
        value = _told(fields, field, environment.get(variables.get(field, ""), "auto"))
        if value in (None, "auto"):
            continue
        numbers = _numbers(field, value)
        if field == "gradient_clipping" and numbers == (0.0,):
            yield Demand(field, None, name)
        else:
            yield Demand(field, numbers, name)


def _numbers(field: str, value: Any) -> tuple[float, ...]:
    several = cast("list[Any]", value if isinstance(value, list) else [value])
    try:
        return tuple(map(float, several))
    except (TypeError, ValueError) as error:
        raise _refused(field, value, "a number, or `auto`") from error


def _same(asked: Any, own: Any) -> bool:
    if not isinstance(asked, tuple) or own is None:
        return bool(asked == own)
    return asked == (own if isinstance(own, tuple) else (own,))


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" for each in cast("tuple[float, ...]", value))
    return f"{value:g}" if isinstance(value, float) else str(json.dumps(value)).strip('"')


def _fp16(field: str, value: Any) -> TrainingError:
    return TrainingError(
        f"the DeepSpeed configuration has {field}: {_shown(value)}, which needs a loss scale of DeepSpeed's own",
        expected="bf16 or fp32, as the recipe's `precision` says",
        fix="switch it off in the configuration, and use `precision: bf16` or `fp32`",
    )


def _refused(field: str, value: Any, expected: str = "") -> TrainingError:
    return TrainingError(
        f"the DeepSpeed configuration has {field}: {_shown(value)}, which this loop does not do",
        expected=expected or "ZeRO stage 0 to 3, with offload to the CPU or without",
        fix=f"leave `{field}` away, or correct it",
    )
