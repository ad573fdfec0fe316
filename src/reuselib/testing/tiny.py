"""Tiny networks and rows, made in memory from fixed seeds: what tests use instead of downloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

GOOD = ("good", "fine", "great", "lovely", "bright")
BAD = ("bad", "poor", "awful", "ugly", "dim")
FILLER = ("the", "film", "was", "a", "very", "day", "and", "so", "it", "is")


def tiny_bert(
    folder: Path, *, head: bool = False, num_labels: int = 2, num_layers: int = 2, seed: int = 0
) -> Path:
    """A BERT encoder with its tokenizer; with `head`, also a classifier."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    tokenizer = _bert_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=256,
        num_labels=num_labels,
    )
    return _write(
        folder, BertForSequenceClassification if head else BertModel, config, tokenizer, seed
    )


def tiny_llama(folder: Path, *, tied: bool = True, num_layers: int = 2, seed: int = 0) -> Path:
    """A Llama decoder with a language-model head; its tokenizer has no padding token."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _word_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _write(folder, LlamaForCausalLM, config, tokenizer, seed)


def tiny_gpt2(folder: Path, *, num_layers: int = 2, seed: int = 0) -> Path:
    """A GPT-2 decoder, whose linear layers are kept transposed."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _word_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=num_layers,
        n_head=4,
        n_positions=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return _write(folder, GPT2LMHeadModel, config, tokenizer, seed)


def tiny_vit(folder: Path, *, num_labels: int = 2, seed: int = 0) -> Path:
    """A vision transformer with a classifier and its image processor."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=16,
        patch_size=4,
        num_labels=num_labels,
    )
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    return _write(folder, ViTForImageClassification, config, processor, seed)


def tiny_resnet(folder: Path, *, num_labels: int = 2, seed: int = 0) -> Path:
    """A residual network in two stages of two blocks; without an image processor."""
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[2, 2],
        layer_type="basic",
        num_labels=num_labels,
    )
    return _write(folder, ResNetForImageClassification, config, None, seed)


def tiny_convnext(folder: Path, *, num_labels: int = 2, seed: int = 0) -> Path:
    """A convolutional network with layer norms and depthwise layers, in two stages; without an image processor."""
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        num_stages=2, hidden_sizes=[8, 16], depths=[1, 2], patch_size=2, num_labels=num_labels
    )
    return _write(folder, ConvNextForImageClassification, config, None, seed)


def tiny_mobilenet(folder: Path, *, num_labels: int = 2, seed: int = 0) -> Path:
    """A MobileNetV2 of a tenth of the usual width; without an image processor."""
    from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

    config = MobileNetV2Config(
        depth_multiplier=0.1, min_depth=4, depth_divisible_by=4, num_labels=num_labels
    )
    return _write(folder, MobileNetV2ForImageClassification, config, None, seed)


def tiny_cnn(*, num_labels: int = 2, num_channels: int = 1) -> nn.Module:
    """A plain convolutional network for 8 x 8 images: no transformers in it."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(num_channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, num_labels),
    )


def tiny_rows(num_rows: int = 64, *, seed: int = 0) -> list[dict[str, Any]]:
    """Short texts of unequal length, labelled `bad` or `good` by the one telling word in each."""
    import random

    draw = random.Random(seed)
    rows = []
    for number in range(num_rows):
        label = ("bad", "good")[number % 2]
        words = [draw.choice(FILLER) for _ in range(draw.randint(2, 12))]
        words.insert(draw.randint(0, len(words)), draw.choice(GOOD if label == "good" else BAD))
        rows.append({"text": " ".join(words), "label": label})
    return rows


def tiny_images(num_rows: int = 32, *, size: int = 8, seed: int = 0) -> list[dict[str, Any]]:
    """Grey images (uint8 arrays), labelled by whether their left or their right half is brighter."""
    import numpy as np

    draw = np.random.default_rng(seed)
    rows = []
    for number in range(num_rows):
        image = draw.integers(0, 100, (size, size), dtype=np.uint8)
        label = ("left", "right")[number % 2]
        half = slice(None, size // 2) if label == "left" else slice(size // 2, None)
        image[:, half] += 100
        rows.append({"image": image, "label": label})
    return rows


def _words() -> Sequence[str]:
    return (*FILLER, *GOOD, *BAD)


def _bert_tokenizer() -> Any:
    from transformers import BertTokenizer

    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_words())
    vocab = {word: index for index, word in enumerate(words)}
    return BertTokenizer(vocab=vocab, model_max_length=256)


def _word_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ("<unk>", "<s>", "</s>", *_words())
    model = models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=256,
    )


def _write(folder: Path, network: type, config: Any, processor: Any, seed: int) -> Path:
    import torch
    from transformers.utils import logging

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = network(config)
    logging.disable_progress_bar()
    module.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder
