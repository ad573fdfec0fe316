"""A tiny network of every family that can be pruned, built from its configuration, with no weight at a round value."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

NUM_WORDS = 40
HIDDEN = 32
UNITS = 48
NUM_BLOCKS = 3
HEAD_DIM = 8

CLASSIFIERS = ("bert", "roberta", "distilbert", "deberta-v2", "vit")
DECODERS = ("gpt2", "llama", "qwen2", "qwen3", "mistral", "gemma", "phi3")
FAMILIES = (*CLASSIFIERS, *DECODERS, "t5")
GROUPED = ("llama", "qwen2", "qwen3", "mistral", "gemma", "phi3")
"""With two query heads for each key/value head."""

_SIZES = {
    "vocab_size": NUM_WORDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": NUM_BLOCKS,
    "num_attention_heads": 4,
    "intermediate_size": UNITS,
    "max_position_embeddings": 64,
}
_GROUPS = {**_SIZES, "num_key_value_heads": 2, "pad_token_id": 0}
_OPTIONS: dict[str, dict[str, Any]] = {
    "bert": _SIZES,
    "roberta": _SIZES,
    "distilbert": {
        "vocab_size": NUM_WORDS,
        "dim": HIDDEN,
        "n_layers": NUM_BLOCKS,
        "n_heads": 4,
        "hidden_dim": UNITS,
        "max_position_embeddings": 64,
    },
    "deberta-v2": {
        **_SIZES,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "type_vocab_size": 0,
        "conv_kernel_size": 3,
    },
    "vit": {
        "hidden_size": HIDDEN,
        "num_hidden_layers": NUM_BLOCKS,
        "num_attention_heads": 4,
        "intermediate_size": UNITS,
        "image_size": 16,
        "patch_size": 4,
    },
    "gpt2": {
        "vocab_size": NUM_WORDS,
        "n_embd": HIDDEN,
        "n_layer": NUM_BLOCKS,
        "n_head": 4,
        "n_inner": UNITS,
        "n_positions": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "llama": _GROUPS,
    "qwen2": {**_GROUPS, "tie_word_embeddings": True},
    "qwen3": {**_GROUPS, "head_dim": 16},
    "mistral": _GROUPS,
    "gemma": {**_GROUPS, "head_dim": 16},
    "phi3": _GROUPS,
    "t5": {
        "vocab_size": NUM_WORDS,
        "d_model": HIDDEN,
        "d_kv": HEAD_DIM,
        "d_ff": UNITS,
        "num_layers": NUM_BLOCKS,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
    },
}


def auto(name: str) -> Any:
    """The class of transformers that opens such a network."""
    import transformers

    if name == "vit":
        return transformers.AutoModelForImageClassification
    if name in CLASSIFIERS:
        return transformers.AutoModelForSequenceClassification
    return transformers.AutoModelForCausalLM if name != "t5" else transformers.AutoModelForSeq2SeqLM


def network(name: str, **options: Any) -> Any:
    """A network in evaluation mode; its weights come from a fixed seed."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(name, **{**_OPTIONS[name], **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = auto(name).from_config(config).eval()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    return module


@cache
def inputs(name: str) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=draw)}
    words = torch.randint(3, NUM_WORDS, (2, 9), generator=draw)
    mask = torch.ones_like(words)
    mask[1, 6:] = 0
    found = {"input_ids": words, "attention_mask": mask}
    if name == "t5":
        found["decoder_input_ids"] = torch.randint(3, NUM_WORDS, (2, 5), generator=draw)
    return found


def outputs(module: Any, name: str) -> torch.Tensor:
    """Logits for two rows, the second padded."""
    with torch.no_grad():
        return module(**inputs(name)).logits
