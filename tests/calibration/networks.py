"""One small network of each family, from its configuration, and batches with padding for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

VOCABULARY = 64
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


class AnyTask:
    """What `stream` needs of a task."""

    def head(self, module: nn.Module) -> tuple[str, ...]:
        names = ("lm_head", "classifier", "score", "classification_head")
        return tuple(name for name in names if hasattr(module, name))

    def forward(self, module: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        given = module(**batch)
        return given if isinstance(given, Tensor) else given.logits


def _bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**SIZES))


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=3, n_heads=4, hidden_dim=48, pad_token_id=0
    )
    return DistilBertForSequenceClassification(config)


def _deberta() -> Any:
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config = DebertaV2Config(
        **SIZES,
        relative_attention=True,
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
    )
    return DebertaV2ForSequenceClassification(config)


def _vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        image_size=16,
        patch_size=4,
    )
    return ViTForImageClassification(config)


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=3,
        n_head=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    return GPT2LMHeadModel(config)


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SIZES))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8, num_key_value_heads=2))


def _gemma2() -> Any:
    """Layers take turns between two masks."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(**SIZES, head_dim=8, sliding_window=4, num_key_value_heads=2)
    return Gemma2ForCausalLM(config)


def _phi3() -> Any:
    from transformers import Phi3Config, Phi3ForCausalLM

    return Phi3ForCausalLM(Phi3Config(**SIZES))


def _t5() -> Any:
    """An encoder, and a decoder that looks at what it gives."""
    from transformers import T5Config, T5ForSequenceClassification

    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        eos_token_id=2,
        pad_token_id=0,
        decoder_start_token_id=0,
    )
    return T5ForSequenceClassification(config)


def _albert() -> Any:
    """One block that is called several times."""
    from transformers import AlbertConfig, AlbertForSequenceClassification

    return AlbertForSequenceClassification(AlbertConfig(**SIZES, embedding_size=16))


NETWORKS: dict[str, Callable[[], Any]] = {
    "bert": _bert,
    "distilbert": _distilbert,
    "deberta": _deberta,
    "vit": _vit,
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "phi3": _phi3,
    "t5": _t5,
    "albert": _albert,
}


def network(family: str, seed: int = 0) -> nn.Module:
    """In evaluation mode, with norms that are not all alike and weights large enough to matter."""
    torch.manual_seed(seed)
    module = NETWORKS[family]().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name.lower() or ".ln_" in name:
                parameter.add_(torch.randn_like(parameter) * 0.2)
            elif parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(3)
    return module


def batches(family: str) -> list[dict[str, Tensor]]:
    """Two batches of unequal length; the first row of each is padded at its end."""
    random = torch.Generator().manual_seed(1)
    if family == "vit":
        return [{"pixel_values": torch.randn(3, 3, 16, 16, generator=random)} for _ in range(2)]
    made = []
    for length in (6, 9):
        ids = torch.randint(3, VOCABULARY, (3, length), generator=random)
        mask = torch.ones_like(ids)
        ids[1:, -1] = 2
        ids[0, -3:] = torch.tensor([2, 0, 0])
        mask[0, -2:] = 0
        made.append({"input_ids": ids, "attention_mask": mask})
    return made


def layers_of(module: nn.Module) -> list[str]:
    """Every linear layer but the head."""
    head = AnyTask().head(module)
    return [
        name
        for name, part in module.named_modules()
        if type(part).__name__ in ("Linear", "Conv1D") and not name.startswith(head)
    ]


def plain_inputs(
    module: nn.Module, names: list[str], rows: list[dict[str, Tensor]]
) -> dict[str, Tensor]:
    """What goes into layers in an ordinary forward pass: [tokens, in], without padding."""
    from reuselib.calibration.statistics import as_matrix

    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def note(name: str, value: Tensor, mask: Tensor | None) -> None:
        if mask is not None and value.shape[:2] == mask.shape:
            value = value[mask.bool()]
        found[name].append(value.reshape(-1, as_matrix(module.get_submodule(name)).shape[1]))

    for batch in rows:
        mask = batch.get("attention_mask")
        handles = [
            module.get_submodule(name).register_forward_pre_hook(
                lambda _, args, name=name, mask=mask: note(name, args[0].detach(), mask)
            )
            for name in names
        ]
        with torch.no_grad():
            module(**batch)
        for handle in handles:
            handle.remove()
    return {name: torch.cat(values) for name, values in found.items()}
