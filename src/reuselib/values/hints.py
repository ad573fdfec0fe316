"""What the options of other tools are called here: Trainer and TRL, peft, Axolotl, LLaMA-Factory."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reuselib.values.document import Path

NAMES: dict[str, tuple[str, str]] = {
    # Models and data
    "model": ("base.source", ""),
    "model_id": ("base.source", ""),
    "model_name": ("base.source", ""),
    "model_name_or_path": ("base.source", ""),
    "pretrained_model_name_or_path": ("base.source", ""),
    "base_model": ("base.source", ""),
    "base_model_name_or_path": ("base.source", ""),
    "model_revision": ("base.revision", ""),
    "dataset": ("data.source", ""),
    "datasets": ("data.source", "one source"),
    "dataset_name": ("data.source", ""),
    "dataset_path": ("data.source", ""),
    "train_file": ("data.source", ""),
    # Task
    "task_type": (
        "task",
        "the task is a key of its own, such as `task: {text_classification: {}}`",
    ),
    "cutoff_len": ("text_classification.max_length", ""),
    "max_seq_length": ("text_classification.max_length", ""),
    "model_max_length": ("text_classification.max_length", ""),
    "sequence_len": ("text_classification.max_length", ""),
    "block_size": ("causal_lm.max_length", ""),
    "dataset_text_field": ("text_classification.text", ""),
    "text_column": ("text_classification.text", ""),
    "text_column_name": ("text_classification.text", ""),
    "label_column": ("text_classification.label", ""),
    "label_column_name": ("text_classification.label", ""),
    "image_column_name": ("image_classification.image", ""),
    "label_names": ("text_classification.labels", ""),
    "problem_type": ("text_classification.problem", ""),
    # LoRA
    "rank": ("lora.r", ""),
    "lora_r": ("lora.r", ""),
    "lora_rank": ("lora.r", ""),
    "alpha": ("lora.lora_alpha", ""),
    "dropout": ("lora.lora_dropout", ""),
    "lora_target": ("lora.target_modules", "selectors, such as `op:Linear`"),
    "lora_target_modules": ("lora.target_modules", "selectors, such as `op:Linear`"),
    "lora_target_linear": ("lora.target_modules", "`[op:Linear]`, the default"),
    "lora_modules": ("lora.target_modules", "selectors, such as `op:Linear`"),
    "peft_use_dora": ("lora.use_dora", ""),
    "peft_use_rslora": ("lora.use_rslora", ""),
    "rslora": ("lora.use_rslora", ""),
    "dora": ("lora.use_dora", ""),
    "layers_to_transform": ("lora.last_blocks", "the number of blocks, counted from the output"),
    "freeze_trainable_layers": ("finetune.train", "a selector, such as `block[-2:]`"),
    "unfrozen_parameters": ("finetune.train", "selectors, such as `head` or `block[-2:]`"),
    "trainable_layers": ("finetune.train", "selectors, such as `head` or `block[-2:]`"),
    # How to train
    "num_train_epochs": ("fit.epochs", ""),
    "num_epochs": ("fit.epochs", ""),
    "n_epochs": ("fit.epochs", ""),
    "train_steps": ("fit.max_steps", ""),
    "num_train_steps": ("fit.max_steps", ""),
    "per_device_train_batch_size": ("fit.batch_size", "rows per optimizer step over all devices"),
    "train_batch_size": ("fit.batch_size", ""),
    "micro_batch_size": ("fit.batch_size", "rows per optimizer step, all micro-batches together"),
    "batch": ("fit.batch_size", ""),
    "gradient_accumulation": ("fit.gradient_accumulation_steps", ""),
    "accumulation_steps": ("fit.gradient_accumulation_steps", ""),
    "accumulate_grad_batches": ("fit.gradient_accumulation_steps", ""),
    "lr": ("fit.learning_rate", ""),
    "adam_beta1": ("fit.optimizer.betas", "both as a list, such as `[0.9, 0.999]`"),
    "adam_beta2": ("fit.optimizer.betas", "both as a list, such as `[0.9, 0.999]`"),
    "adam_epsilon": ("fit.optimizer.eps", ""),
    "gradient_clipping": ("fit.optimizer.max_grad_norm", ""),
    "clip_grad_norm": ("fit.optimizer.max_grad_norm", ""),
    "lr_scheduler": ("fit.schedule.lr_scheduler_type", ""),
    "scheduler": ("fit.schedule.lr_scheduler_type", ""),
    "warmup_ratio": ("fit.schedule.warmup_steps", "a value below 1 is a share of all steps"),
    "warmup": ("fit.schedule.warmup_steps", ""),
    "num_warmup_steps": ("fit.schedule.warmup_steps", ""),
    "bf16": ("fit.precision", "`bf16`, or leave out the default `auto`"),
    "fp16": ("fit.precision", "`fp16`"),
    "mixed_precision": ("fit.precision", ""),
    "train_sampling_strategy": ("fit.group_by_length", "true is the default"),
    "length_column_name": ("fit.group_by_length", "lengths are known; true is the default"),
    "early_stopping_patience": ("fit.early_stopping.patience", ""),
    "early_stopping_threshold": ("fit.early_stopping.min_delta", ""),
    "load_best_model_at_end": ("fit.early_stopping", "`{patience: 1}` keeps the best weights"),
    "llrd": ("finetune.layerwise_decay", ""),
    "layer_decay": ("finetune.layerwise_decay", ""),
    "gate": ("gates", "a list, such as `[{accuracy: {max_drop: 0.02}}]`"),
    "thresholds": ("gates", "a list, such as `[{accuracy: {min: 0.8}}]`"),
    "metric_thresholds": ("gates", "a list, such as `[{accuracy: {min: 0.8}}]`"),
    "accuracy_criterion": ("gates", "a list, such as `[{accuracy: {max_drop: 0.02}}]`"),
    "random_seed": ("seed", ""),
    "data_seed": ("seed", "one seed for everything"),
    # Not part of a recipe: it says what is made, not where it goes
    "output_dir": ("--output", ""),
    "output": ("--output", ""),
    "overwrite_output_dir": ("--overwrite", ""),
    "report_to": ("--tracker", ""),
    "wandb_project": ("--tracker", ""),
}
"""Foreign name -> where it is here (a field of the recipe, of a class by kind, or an option of `reuselib run`), and
a remark on the value."""

NEEDLESS: dict[str, str] = {
    "adapter": "write the adapter as a step: `steps: [{lora: {r: 8}}]`",
    "finetuning_type": "write the adapter as a step: `steps: [{lora: {r: 8}}]`",
    "stage": "write what is to be done as `steps`",
    "do_train": "leave it out: the steps say what is done",
    "do_eval": "leave it out: the child is always measured",
    "save_steps": "leave it out: a step is kept as a whole or not at all",
    "save_strategy": "leave it out: a step is kept as a whole or not at all",
    "save_safetensors": "leave it out: weights are always written as safetensors",
    "eval_strategy": "leave it out: with `fit.early_stopping` validation runs after each epoch",
    "logging_steps": "leave it out: every step is reported; `reuselib run --tracker tensorboard` keeps it",
    "optim": "leave it out: the optimizer is AdamW, fused where torch has it",
    "load_in_4bit": "leave it out: the base is loaded in fp32",
    "load_in_8bit": "leave it out: the base is loaded in fp32",
    "torch_dtype": "leave it out: weights are loaded in fp32; `fit.precision` says how to compute",
    "dtype": "leave it out: weights are loaded in fp32; `fit.precision` says how to compute",
    "template": "leave it out: prepare the text in the data",
    "padding": "leave it out: batches are padded to their longest row",
    "dataloader_num_workers": "leave it out: rows are encoded once, before training",
    "resume_from_checkpoint": "leave it out: run the same recipe again; finished steps are found in the store",
}
"""Foreign names that nothing stands for here, and why nothing is lost."""

STEPS: dict[str, str] = {
    "sft": "finetune",
    "full": "finetune",
    "fine_tune": "finetune",
    "fine-tune": "finetune",
    "fine_tuning": "finetune",
    "freeze": "finetune",
    "train": "finetune",
    "peft": "lora",
    "qlora": "lora",
    "dora": "lora",
    "rslora": "lora",
    "merge_and_unload": "merge",
    "merge_lora": "merge",
}
"""Foreign names of adapters -> our kinds."""


def translate(key: str, path: Path) -> str | None:
    """What to write instead of a foreign key inside the mapping at `path`, as a sentence; None if it is unknown."""
    key = key.lower()
    if key in NEEDLESS:
        return NEEDLESS[key]
    if key not in NAMES:
        return None
    target, remark = NAMES[key]
    remark = f" ({remark})" if remark else ""
    if target.startswith("--"):
        return f"not part of a recipe; use `reuselib run {target}`{remark}"
    return f"use `{_relative(target, path)}`{remark}"


def _relative(target: str, path: Path) -> str:
    """The target as it is written inside `path`: `lora.r` is `r` within a lora step."""
    scope = path[-1] if path else ""
    parts = target.split(".")
    if len(parts) > 1 and scope in parts[:-1]:
        return ".".join(parts[parts.index(str(scope)) + 1 :])
    return target
