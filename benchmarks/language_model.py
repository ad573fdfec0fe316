"""What rounding to 4 bits and leaving out half of the weights cost a language model, method by method.

SmolLM2-135M (see smollm2.py) on sentences of documentation: `sample:docstrings`, calibrated on training rows,
perplexity on test rows. The linear layers of the blocks are changed; the embedding, which is the output layer as well,
is not.

- `int4`: round to nearest, AWQ and GPTQ, symmetric, in groups of columns. The model is 576 wide, which 128 does not
  divide, so groups of 64 and 192 are reported. In groups of 128 only the layers that are 1536 wide could be rounded
  (`down_proj`, a third of the weights); the rest would have to be padded, which its file format does not know.
- `sparse`: half of the weights of each layer left out by magnitude, Wanda and SparseGPT, anywhere and 2 of 4.

The gap of a method is its perplexity minus that of the dense model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from rig import keep, machine
from torch import Tensor, nn

from reuselib.calibration.statistics import Statistics, as_matrix
from reuselib.calibration.streaming import Visit, stream
from reuselib.network.selectors import select_modules
from reuselib.pruning.sparsegpt import sparsegpt
from reuselib.pruning.wanda import wanda
from reuselib.quantization.awq import awq, protect
from reuselib.quantization.gptq import gptq
from reuselib.quantization.grid import Grid, restore, round_to, scales
from reuselib.task import Batch, Examples
from reuselib.tasks.causal_lm import CausalLM
from reuselib.training.evaluate import evaluate
from reuselib.training.threads import all_cores

TASK = CausalLM(max_length=128)
BLIND = ("rtn", "magnitude")
WITHOUT_PRODUCTS = ("wanda",)
SPARSE = {"50 %": {"sparsity": 0.5}, "2:4": {"pattern": (2, 4)}}


@dataclass(frozen=True)
class Setting:
    """A model with rows that it has encoded."""

    module: nn.Module
    processor: Any
    batches: Sequence[Batch]
    """To calibrate with."""
    test: Examples

    @property
    def layers(self) -> list[str]:
        """The linear layers of the blocks."""
        head = TASK.head(self.module)
        return select_modules(self.module, ["op:Linear & block[:]"], head=head)

    def perplexity(self) -> float:
        """On the test rows, as the module is now."""
        return evaluate(self.module, self.test, TASK, self.processor, 32)["perplexity"]


# The methods: each changes one block in place.

Method = Callable[[nn.Module, Visit], None]


def put(module: nn.Module, name: str, weight: Tensor) -> None:
    with torch.no_grad():
        as_matrix(module.get_submodule(name)).copy_(weight)


def each_layer(solve: Callable[..., Tensor]) -> Method:
    """Apply `solve(weight, statistics)` to every layer of a block."""

    def change(module: nn.Module, visit: Visit) -> None:
        for name, statistics in visit.layers.items():
            put(module, name, solve(as_matrix(module.get_submodule(name)), statistics))

    return change


def int4(grid: Grid) -> dict[str, Method]:
    """Ways to round."""

    def nearest(weight: Tensor, _: Any) -> Tensor:
        steps = scales(weight, grid)
        return restore(round_to(weight, steps, grid), steps)

    def protected(module: nn.Module, visit: Visit) -> None:
        balanced = protect(module, visit, grid)
        each_layer(lambda weight, seen: restore(*awq(weight, seen.gram, grid)))(
            module, Visit(visit.block, balanced.layers, visit.outputs)
        )

    return {
        "rtn": each_layer(nearest),
        "awq": protected,
        "gptq": each_layer(lambda weight, seen: restore(*gptq(weight, seen.gram, grid))),
        "gptq, act_order": each_layer(
            lambda weight, seen: restore(*gptq(weight, seen.gram, grid, act_order=True))
        ),
    }


def sparse(request: Mapping[str, Any]) -> dict[str, Method]:
    """Ways to leave weights out."""

    def by_magnitude(weight: Tensor, _: Any) -> Tensor:
        if "pattern" in request:
            return weight * wanda(weight, torch.ones(weight.shape[1]), **request)
        flat = weight.abs().flatten()
        gone = flat.argsort(stable=True)[: round(request["sparsity"] * len(flat))]
        return weight.flatten().index_fill(0, gone, 0.0).view_as(weight)

    return {
        "magnitude": each_layer(by_magnitude),
        "wanda": each_layer(lambda weight, seen: weight * wanda(weight, seen.norm, **request)),
        "sparsegpt": each_layer(lambda weight, seen: sparsegpt(weight, seen.gram, **request)),
    }


# What surrounds them.


def compare(setting: Setting, plans: Mapping[str, Mapping[str, Method]]) -> dict[str, Any]:
    """Perplexity and seconds of every method, each from the dense weights."""
    state = {name: value.clone() for name, value in setting.module.state_dict().items()}
    base = setting.perplexity()
    result: dict[str, Any] = {"dense": base}
    print(json.dumps(result), flush=True)
    for plan, methods in plans.items():
        for name, method in methods.items():
            setting.module.load_state_dict(state)
            began = time.perf_counter()
            for visit in visits(setting, name):
                method(setting.module, visit)
            seconds = time.perf_counter() - began
            found = {"perplexity": setting.perplexity(), "seconds": seconds}
            found["gap"] = found["perplexity"] - base
            result.setdefault(plan, {})[name] = found
            print(json.dumps({plan: {name: found}}), flush=True)
    setting.module.load_state_dict(state)
    return result


def visits(setting: Setting, method: str) -> Iterable[Visit]:
    """What a method is shown: the blocks one by one or, if it looks at no rows, all layers at once."""
    if method in BLIND:
        return [Visit("", dict.fromkeys(setting.layers, cast("Statistics", None)), list)]
    return stream(
        setting.module, TASK, setting.batches, setting.layers, gram=method not in WITHOUT_PRODUCTS
    )


def real_setting(folder: Path, num_rows: int, num_test_rows: int) -> Setting:
    """SmolLM2 and sentences of documentation."""
    from reuselib.data import Data

    splits = Data(source="sample:docstrings").load()
    order = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(splits.train), generator=order)[:num_rows].tolist()
    tests = torch.randperm(len(splits.test), generator=order)[:num_test_rows].tolist()
    return _setting(
        folder, [splits.train[row] for row in rows], [splits.test[row] for row in tests]
    )


def tiny_setting(folder: Path) -> Setting:
    """A network that has learned nothing: to see that everything runs."""
    from reuselib.testing.tiny import tiny_llama, tiny_rows

    rows = tiny_rows(24)
    return _setting(tiny_llama(folder), rows[:16], rows[16:])


def _setting(folder: Path, train: Sequence[Any], test: Sequence[Any]) -> Setting:
    loaded = TASK.load(folder)
    examples = sorted(TASK.encode(train, loaded.processor), key=TASK.length)
    batches = [
        TASK.collate(examples[at : at + 32], loaded.processor) for at in range(0, len(train), 32)
    ]
    return Setting(loaded.module, loaded.processor, batches, TASK.encode(test, loaded.processor))


def _asked(method: str, methods: Sequence[str] | None) -> bool:
    return methods is None or method in methods


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--model", type=Path, help="folder written by smollm2.py")
    parser.add_argument("--rows", type=int, default=256, help="to calibrate with")
    parser.add_argument("--test-rows", type=int, default=400)
    parser.add_argument("--only", default="", help="how the names of the parts begin, such as int4")
    parser.add_argument("--methods", nargs="+", help="such as rtn gptq; default: all")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    if not options.smoke and options.model is None:
        parser.error("name the model's folder with --model, see smollm2.py")
    groups = (16, 32) if options.smoke else (64, 192)
    plans = {f"int4, groups of {size}": int4(Grid(4, size)) for size in groups}
    plans |= {f"sparse, {name}": sparse(request) for name, request in SPARSE.items()}
    plans = {
        name: {method: change for method, change in plan.items() if _asked(method, options.methods)}
        for name, plan in plans.items()
        if name.startswith(options.only)
    }
    with tempfile.TemporaryDirectory() as folder, all_cores():
        setting = (
            tiny_setting(Path(folder))
            if options.smoke
            else real_setting(options.model, options.rows, options.test_rows)
        )
        result = {
            "machine": machine("gguf"),
            "rows": {
                "calibration": sum(len(batch["labels"]) for batch in setting.batches),
                "calibration_tokens": sum(
                    int(batch["attention_mask"].sum()) for batch in setting.batches
                ),
                "test": len(setting.test),
            },
            "num_layers": len(setting.layers),
            **compare(setting, plans),
        }
    if options.output or not options.smoke:
        keep(result, "language_model", options.output)


if __name__ == "__main__":
    main()
