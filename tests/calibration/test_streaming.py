from __future__ import annotations

import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from calibration.networks import NETWORKS, AnyTask, batches, layers_of, network, plain_inputs
from reuselib.calibration.statistics import as_matrix
from reuselib.calibration.streaming import stream
from reuselib.errors import IncompatibleStep, TrainingError

TASK = AnyTask()


def require_same(found, values):
    assert found.num_tokens == len(values)
    values = values.double()
    products = values.T @ values / len(values)
    torch.testing.assert_close(found.gram.double(), products, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.norm.double(), values.norm(dim=0), rtol=1e-4, atol=1e-5)
    # kept in 32 bits, whose own rounding is 1.2e-7
    torch.testing.assert_close(
        found.abs_mean.double(), values.abs().mean(dim=0), rtol=1e-6, atol=1e-7
    )
    torch.testing.assert_close(found.abs_max.double(), values.abs().amax(dim=0))


@pytest.mark.parametrize("family", NETWORKS)
def test_statistics_are_those_of_the_network_as_it_is_by_then(family):
    """Each block is changed as soon as it was visited; what comes later is as in an ordinary pass from there on."""
    module, rows = network(family), batches(family)
    layers = layers_of(module)
    seen: list[str] = []

    for visit in stream(module, TASK, rows, layers):
        expected = plain_inputs(module, list(visit.layers), rows)
        for name, statistics in visit.layers.items():
            require_same(statistics, expected[name])
        with torch.no_grad():
            for name in visit.layers:
                as_matrix(module.get_submodule(name)).mul_(0.9).add_(0.01)
        seen += visit.layers

    assert sorted(seen) == sorted(layers)


@pytest.mark.parametrize(
    ("family", "first_visits"),
    [
        ("bert", ["bert.encoder.layer.0", "bert.encoder.layer.1", "bert.encoder.layer.2", ""]),
        ("llama", ["model.layers.0", "model.layers.1", "model.layers.2"]),
        ("albert", [""]),
        (
            "t5",
            [f"transformer.{part}.block.{i}" for part in ("encoder", "decoder") for i in (0, 1)],
        ),
    ],
)
def test_blocks_come_first_to_last_and_what_is_outside_comes_last(family, first_visits):
    module = network(family)

    found = [
        visit.block
        for visit in stream(module, TASK, batches(family), layers_of(module), gram=False)
    ]

    assert found == first_visits


@pytest.mark.parametrize(
    ("family", "times"),
    [("bert", (6, 6, 4)), ("llama", (6, 6, 4)), ("gpt2", (6, 6, 4)), ("gemma2", (6, 6, 4))],
)
def test_a_block_is_run_twice_a_batch_and_not_again_for_those_after_it(family, times):
    """Two runs of two batches, but one of the last block; two more to see the wiring.

    Gemma's second block takes a mask that the first has not seen, so that the network is run up to it once more,
    instead of the first block's second run.
    """
    module, calls = network(family), Counter()
    lists = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    for at, block in enumerate(lists[0]):
        block.register_forward_hook(lambda *_, at=at: calls.update([at]))

    for _ in stream(module, TASK, batches(family), layers_of(module)):
        pass

    outside = 2 if family == "bert" else 0  # one pass through the whole network for its pooler
    assert tuple(calls[at] - outside for at in range(3)) == times


def test_layers_fed_with_the_same_tensor_share_their_statistics():
    module = network("llama")

    visit = next(stream(module, TASK, batches("llama"), layers_of(module)))

    found = {name.rpartition(".")[2]: statistics for name, statistics in visit.layers.items()}
    assert found["q_proj"].gram is found["k_proj"].gram is found["v_proj"].gram
    assert found["o_proj"].gram is not found["q_proj"].gram


def test_padding_counts_for_nothing():
    """Rows of a padded batch give what each of them gives alone."""
    module, rows = network("bert"), batches("bert")[:1]
    alone = [
        {
            name: value[row : row + 1, : rows[0]["attention_mask"][row].sum()]
            for name, value in rows[0].items()
        }
        for row in range(3)
    ]
    name = "bert.encoder.layer.2.output.dense"

    together, apart = (
        next(stream(module, TASK, each, [name])).layers[name] for each in (rows, alone)
    )

    assert together.num_tokens == apart.num_tokens == 4 + 6 + 6
    torch.testing.assert_close(together.gram, apart.gram, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.abs_max, apart.abs_max)


def test_without_products_there_are_none():
    module = network("bert")

    for visit in stream(module, TASK, batches("bert"), layers_of(module), gram=False):
        assert all(statistics.gram is None for statistics in visit.layers.values())


def test_the_same_inputs_give_the_same_bits():
    module = network("gemma2")

    first, second = (
        list(stream(module, TASK, batches("gemma2"), layers_of(module))) for _ in range(2)
    )

    for one, two in zip(first, second, strict=True):
        for name, statistics in one.layers.items():
            assert statistics.gram.equal(two.layers[name].gram)
            assert statistics.norm.equal(two.layers[name].norm)


def test_the_outputs_of_a_visit_are_those_of_the_block_as_it_is_now():
    module = network("llama")

    for visit in stream(module, TASK, batches("llama"), layers_of(module)):
        before = visit.outputs()
        with torch.no_grad():
            module.get_submodule(visit.block).mlp.down_proj.weight.zero_()
        after = visit.outputs()
        assert before[0].shape == (3, 6, 32)
        assert not before[0].equal(after[0])


def test_layers_may_be_replaced_on_the_way():
    module, rows = network("llama"), batches("llama")

    for visit in stream(module, TASK, rows, layers_of(module)):
        expected = plain_inputs(module, list(visit.layers), rows)
        for name, statistics in visit.layers.items():
            require_same(statistics, expected[name])
            parent, _, last = name.rpartition(".")
            old = module.get_submodule(name)
            new = nn.Linear(old.in_features, old.out_features)
            setattr(module.get_submodule(parent), last, new)


def test_the_module_is_left_as_it_was_even_if_the_loop_is_left_early():
    module = network("llama").train()
    module.model.layers[1].eval()
    modes = [part.training for part in module.modules()]

    for _ in stream(module, TASK, batches("llama"), layers_of(module)):
        assert not any(part.training for part in module.modules())
        break

    assert [part.training for part in module.modules()] == modes
    assert module.config.use_cache
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in module.modules())
    assert torch.is_grad_enabled()


class InPlace(nn.Module):
    """A block that changes what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return x.relu_() + self.layer(x)


class Chain(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.unused = nn.Linear(4, 4)

    def forward(self, x):
        x = x.clone()
        for block in self.blocks:
            x = block(x)
        return x


def test_blocks_that_change_their_inputs_in_place_are_run_on_copies():
    torch.manual_seed(0)
    module, rows = Chain([InPlace() for _ in range(3)]), [{"x": torch.randn(5, 4)}]
    layers = [f"blocks.{at}.layer" for at in range(3)]

    for visit in stream(module, TASK, rows, layers):
        expected = plain_inputs(module, list(visit.layers), rows)
        require_same(visit.layers[f"{visit.block}.layer"], expected[f"{visit.block}.layer"])


class LateChange(InPlace):
    """A block that changes what its layer has seen."""

    def forward(self, x):
        return self.layer(x) + x.relu_()


def test_inputs_that_are_changed_after_they_were_used_are_not_counted_wrongly():
    module = Chain([LateChange() for _ in range(2)])

    with pytest.raises(IncompatibleStep, match=r"blocks\.0\.layer in place after"):
        next(stream(module, TASK, [{"x": torch.randn(5, 4)}], ["blocks.0.layer"]))


def test_a_layer_that_no_row_reaches_is_named():
    module = Chain([InPlace(), InPlace()])

    with pytest.raises(IncompatibleStep, match="reaches the layer unused"):
        list(stream(module, TASK, [{"x": torch.randn(5, 4)}], ["unused"]))


def test_a_layer_of_another_type_is_refused_before_anything_runs():
    module = network("bert")

    with pytest.raises(IncompatibleStep, match="of type Embedding"):
        next(stream(module, TASK, [], ["bert.embeddings.word_embeddings"]))


def test_inputs_that_are_not_finite_are_named_by_layer_and_row():
    module = Chain([InPlace(), InPlace()])
    rows = [{"x": torch.ones(5, 4)}, {"x": torch.ones(5, 4)}]
    rows[1]["x"][3, 2] = torch.nan

    with pytest.raises(TrainingError, match=r"blocks\.0\.layer are not finite in batch 2, row 4"):
        list(stream(module, TASK, rows, ["blocks.0.layer"]))


class Meter(TorchDispatchMode):
    """The most bytes that tensors made within held at one moment."""

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[int] = Counter()
        self.sizes: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = function(*args, **(kwargs or {}))
        for each in given if isinstance(given, (tuple, list)) else (given,):
            if isinstance(each, torch.Tensor):
                storage = each.untyped_storage()
                key = storage.data_ptr()
                self.live[key] += 1
                self.sizes[key] = storage.nbytes()
                weakref.finalize(each, self._release, key)
        self.peak = max(self.peak, sum(self.sizes[key] for key in self.live))
        return given

    def _release(self, key: int) -> None:
        self.live[key] -= 1
        if not self.live[key]:
            del self.live[key]


def peak(num_layers: int, num_batches: int) -> int:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=8,
        hidden_size=32,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        intermediate_size=64,
    )
    module = LlamaForCausalLM(config).eval()
    rows = [{"input_ids": torch.zeros(16, 32, dtype=torch.long)} for _ in range(num_batches)]
    layers = [name for name in layers_of(module) if "layers" in name]
    with Meter() as meter:
        for _ in stream(module, TASK, rows, layers):
            pass
    return meter.peak


def test_memory_does_not_grow_with_depth_and_by_one_input_a_batch():
    shallow, deep, longer = peak(2, 4), peak(8, 4), peak(2, 8)

    inputs = 16 * 32 * 32 * 4  # of one block, for one batch
    wiring = (
        2 * 32 * 32 * 4
    )  # two rows of one batch are kept for all blocks at once, to see the wiring
    assert deep <= shallow + 6 * 8 * wiring
    assert deep <= 1.25 * shallow
    assert longer - shallow <= 4 * 1.5 * inputs
