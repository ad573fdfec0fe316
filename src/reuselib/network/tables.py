"""One table a family of transformers: where heads, FFN units and the hidden width sit. Plain data, see `anatomy`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reuselib.network.anatomy import AttentionTable, ConfigKeys, FeedForwardTable, Table

_BERT_BLOCK = AttentionTable(
    name="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    head_dim="attention_head_size",
    attributes={"num_attention_heads": "heads", "all_head_size": "width"},
)
_BERT = Table(
    stacks=("encoder.layer",),
    attention=(_BERT_BLOCK,),
    feed_forward=(FeedForwardTable(up=("intermediate.dense",), down="output.dense"),),
    config=ConfigKeys(),
    norms=("*LayerNorm", "lm_head.layer_norm"),
    embeddings=("embeddings.*_embeddings",),
    reads=(
        "pooler.dense",
        "classifier",
        "classifier.dense",
        "classifier.out_proj",
        "qa_outputs",
        "cls.predictions.transform.dense",
        "cls.predictions.decoder",
        "cls.seq_relationship",
        "lm_head.dense",
        "lm_head.decoder",
    ),
    writes=(
        "pooler.dense",
        "classifier.dense",
        "cls.predictions.transform.dense",
        "lm_head.dense",
    ),
    aloof=("cls.predictions.bias", "lm_head.bias"),
)

_DISTILBERT = Table(
    stacks=("transformer.layer",),
    attention=(
        AttentionTable(
            name="attention",
            query="attention.q_lin",
            key="attention.k_lin",
            value="attention.v_lin",
            output="attention.out_lin",
            head_dim="attention_head_size",
            attributes={"n_heads": "heads", "dim": "hidden"},
        ),
    ),
    feed_forward=(FeedForwardTable(up=("ffn.lin1",), down="ffn.lin2"),),
    config=ConfigKeys(hidden=("dim",), heads="n_heads", units="hidden_dim", blocks=("n_layers",)),
    norms=("*LayerNorm", "sa_layer_norm", "output_layer_norm", "vocab_layer_norm"),
    embeddings=("embeddings.*_embeddings",),
    reads=("pre_classifier", "classifier", "qa_outputs", "vocab_transform", "vocab_projector"),
    writes=("pre_classifier", "vocab_transform"),
    attributes={"n_layers": "blocks"},
)

_DEBERTA = replace(
    _BERT,
    attention=(
        replace(
            _BERT_BLOCK,
            query="attention.self.query_proj",
            key="attention.self.key_proj",
            value="attention.self.value_proj",
            by_head=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
        ),
    ),
    config=ConfigKeys(hidden=("hidden_size", "pooler_hidden_size")),
    embeddings=("embeddings.*_embeddings", "encoder.rel_embeddings"),
    reads=(*_BERT.reads, "encoder.conv.conv"),
    writes=(*_BERT.writes, "encoder.conv.conv"),
    attributes={"embedding_size": "hidden"},
    first_block_holds="encoder.conv",
)

_VIT = Table(
    stacks=("layers",),
    attention=(
        AttentionTable(
            name="attention",
            query="attention.q_proj",
            key="attention.k_proj",
            value="attention.v_proj",
            output="attention.o_proj",
            head_dim="head_dim",
            attributes={"num_attention_heads": "heads"},
        ),
    ),
    feed_forward=(FeedForwardTable(up=("mlp.fc1",), down="mlp.fc2"),),
    config=ConfigKeys(hidden=("hidden_size", "pooler_output_size"), head_dim="head_dim"),
    norms=("layernorm_before", "layernorm_after", "layernorm"),
    embeddings=(),
    reads=("classifier", "pooler.dense"),
    writes=("embeddings.patch_embeddings.projection", "pooler.dense"),
    raw=("embeddings.cls_token", "embeddings.position_embeddings", "embeddings.mask_token"),
)

_GPT2 = Table(
    stacks=("h",),
    attention=(
        AttentionTable(
            name="attn",
            query="attn.c_attn",
            key="attn.c_attn",
            value="attn.c_attn",
            output="attn.c_proj",
            head_dim="head_dim",
            attributes={"num_heads": "heads", "split_size": "width", "embed_dim": "hidden"},
        ),
    ),
    feed_forward=(FeedForwardTable(up=("mlp.c_fc",), down="mlp.c_proj"),),
    config=ConfigKeys(hidden=("n_embd",), heads="n_head", units="n_inner", blocks=("n_layer",)),
    norms=("ln_1", "ln_2", "ln_f"),
    embeddings=("wte", "wpe"),
    reads=("lm_head", "score", "classifier", "qa_outputs"),
    attributes={"embed_dim": "hidden"},
)

_LLAMA_BLOCK = AttentionTable(
    name="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    output="self_attn.o_proj",
    head_dim="head_dim",
    attributes={"num_key_value_groups": "repeats"},
)
_LLAMA = Table(
    stacks=("layers",),
    attention=(_LLAMA_BLOCK,),
    feed_forward=(
        FeedForwardTable(
            up=("mlp.gate_proj", "mlp.up_proj"),
            down="mlp.down_proj",
            attribute="mlp.intermediate_size",
        ),
    ),
    config=ConfigKeys(
        groups="num_key_value_heads", head_dim="head_dim", per_block=("layer_types",)
    ),
    norms=("input_layernorm", "post_attention_layernorm", "norm"),
    embeddings=("embed_tokens",),
    reads=("lm_head", "score", "qa_outputs"),
    attributes={"hidden_size": "hidden"},
)
_QWEN3 = replace(
    _LLAMA,
    attention=(replace(_LLAMA_BLOCK, norms=("self_attn.q_norm", "self_attn.k_norm")),),
)
_GEMMA = replace(_LLAMA, attributes={"hidden_size": "hidden", "scalar_embed_scale": "root"})
_PHI3 = replace(
    _LLAMA,
    attention=(
        replace(
            _LLAMA_BLOCK,
            query="self_attn.qkv_proj",
            key="self_attn.qkv_proj",
            value="self_attn.qkv_proj",
            attributes={"num_key_value_groups": "repeats", "num_key_value_heads": "groups"},
            config_key="num_attention_heads",
        ),
    ),
    feed_forward=(
        FeedForwardTable(up=("mlp.gate_up_proj", "mlp.gate_up_proj"), down="mlp.down_proj"),
    ),
)


def _t5_attention(name: str) -> AttentionTable:
    return AttentionTable(
        name=name,
        query=f"{name}.q",
        key=f"{name}.k",
        value=f"{name}.v",
        output=f"{name}.o",
        head_dim="key_value_proj_dim",
        attributes={"n_heads": "heads", "inner_dim": "width", "d_model": "hidden"},
        head_bias=f"{name}.relative_attention_bias",
    )


def _t5_feed_forward(name: str, *up: str) -> FeedForwardTable:
    return FeedForwardTable(
        up=tuple(f"{name}.DenseReluDense.{each}" for each in up), down=f"{name}.DenseReluDense.wo"
    )


_T5 = Table(
    stacks=("encoder.block", "decoder.block"),
    attention=(_t5_attention("layer.0.SelfAttention"), _t5_attention("layer.1.EncDecAttention")),
    feed_forward=(
        _t5_feed_forward("layer.2", "wi_0", "wi_1"),
        _t5_feed_forward("layer.2", "wi"),
        _t5_feed_forward("layer.1", "wi_0", "wi_1"),
        _t5_feed_forward("layer.1", "wi"),
    ),
    config=ConfigKeys(
        hidden=("d_model",),
        heads="num_heads",
        head_dim="d_kv",
        units="d_ff",
        blocks=("num_layers", "num_decoder_layers"),
    ),
    norms=("*layer_norm",),
    embeddings=("shared", "embed_tokens"),
    reads=(
        "lm_head",
        "classification_head.dense",
        "classification_head.out_proj",
        "classifier",
        "qa_outputs",
    ),
    writes=("classification_head.dense",),
    attributes={"model_dim": "hidden"},
    first_block_holds="layer.0.SelfAttention.relative_attention_bias",
    one_set_of_heads=True,
)

TABLES: Mapping[str, Table] = {
    "bert": _BERT,
    "deberta-v2": _DEBERTA,
    "distilbert": _DISTILBERT,
    "gemma": _GEMMA,
    "gpt2": _GPT2,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "phi3": _PHI3,
    "qwen2": _LLAMA,
    "qwen3": _QWEN3,
    "roberta": _BERT,
    "t5": _T5,
    "vit": _VIT,
}
"""By `config.model_type`."""
