from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from reuselib.calibration.plan import Calibration
from reuselib.errors import IncompatibleStep, IntegrityError, TrainingError
from reuselib.lineage.structure import Structure
from reuselib.pruning import channels
from reuselib.pruning.channels import Channels, replay_channels
from reuselib.pruning.slices import Slices, sliced

FEW = Calibration(num_rows=8, batch_size=4)
NETWORKS = ("cnn", "resnet", "convnext", "mobilenet")


def prune_channels(module, session, how):
    return channels.prune_channels(module, session, how).structure


def num_parameters(module):
    return sum(each.numel() for each in module.parameters())


def outputs(module, session):
    with torch.no_grad():
        return session.task.forward(module.eval(), session.example())


@pytest.mark.parametrize("name", NETWORKS)
def test_every_tensor_is_the_recorded_part_of_what_it_was(start, name):
    module, session = start(name)
    before = copy.deepcopy(module.state_dict())

    structure = prune_channels(module, session, Channels(ratio=0.5))

    after = module.state_dict()
    slices = Slices.read(Structure({key: structure[key] for key in ("keep", "tensors", "layers")}))
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert value.equal(sliced(key, before[key], slices)), key
    assert num_parameters(module) < 0.45 * sum(each.numel() for each in before.values())
    assert outputs(module, session).shape == (2, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_record_rebuilds_the_network_after_a_trip_through_json(start, name):
    module, session = start(name)
    skeleton = copy.deepcopy(module)
    for each in skeleton.parameters():
        nn.init.ones_(each)

    structure = prune_channels(module, session, Channels(ratio=0.4))
    rebuilt = replay_channels(skeleton, json.loads(json.dumps(structure)))
    rebuilt.load_state_dict(module.state_dict())

    assert outputs(rebuilt, session).equal(outputs(module, session))
    assert str(rebuilt) == str(module)  # the layers say the same sizes


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore:Unwrapped parameters detected")
def test_torch_pruning_makes_the_same_of_its_history(start, name):
    import torch_pruning as tp

    module, session = start(name)
    plain = copy.deepcopy(module).requires_grad_(True)
    structure = prune_channels(module, session, Channels(ratio=0.4))

    graph = tp.DependencyGraph().build_dependency(
        plain, session.example(), forward_fn=session.task.forward
    )
    graph.load_pruning_history(structure["history"])

    assert outputs(plain, session).equal(outputs(module, session))


@pytest.mark.parametrize("name", ["cnn", "resnet", "mobilenet"])
def test_pruned_is_dense_with_zeroed_channels(start, name):
    """Where a batch norm follows each convolution, a channel that it zeroes says nothing further on."""
    module, session = start(name)
    dense = copy.deepcopy(module)

    structure = prune_channels(module, session, Channels(ratio=0.4))

    zeroed = 0
    with torch.no_grad():
        for layer_name, layer in dense.named_modules():
            dims = structure["tensors"].get(f"{layer_name}.weight", {})
            if isinstance(layer, nn.BatchNorm2d) and "0" in dims:
                gone = sorted(set(range(layer.num_features)) - {*structure["keep"][dims["0"]]})
                layer.weight[gone] = 0
                layer.bias[gone] = 0
                zeroed += len(gone)
    assert zeroed
    assert torch.allclose(outputs(module, session), outputs(dense, session), atol=1e-5)


def test_the_smallest_channels_go_first(start):
    """Of the first convolution: the norm of its filters, its batch norm and the next layer's inputs together."""
    module, session = start("cnn")
    first, norm, second = module[0], module[1], module[3]
    with torch.no_grad():
        for layer, dim in ((first, 0), (norm, 0), (second, 1)):
            layer.weight.index_fill_(dim, torch.tensor([1, 4, 6]), 1e-3)

    structure = prune_channels(module, session, Channels(ratio=3 / 8))

    kept = structure["keep"][structure["tensors"]["0.weight"]["0"]]
    assert kept == [0, 2, 3, 5, 7]


@pytest.mark.parametrize("importance", ["activation", "taylor"])
def test_a_channel_that_says_nothing_goes_first(start, importance):
    module, session = start("cnn")
    with torch.no_grad():
        module[1].weight[[2, 5]] = 0
        module[1].bias[[2, 5]] = 0
        module[0].weight[[2, 5]] = 100.0  # large, but of no effect

    structure = prune_channels(
        module, session, Channels(ratio=0.25, importance=importance, calibration=FEW)
    )

    assert structure["keep"][structure["tensors"]["0.weight"]["0"]] == [0, 1, 3, 4, 6, 7]


def test_chance_comes_from_torchs_generator(start):
    kept = []
    for seed in (0, 0, 1):
        module, session = start("cnn")
        torch.manual_seed(seed)
        kept.append(prune_channels(module, session, Channels(ratio=0.5, importance="random")))
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize(("ratio", "left"), [(0.3, 7), (0.8, 2), (0.99, 1), (0.19, 9)])
def test_shares_are_exact_and_rounded_down(start, ratio, left):
    """0.3 x 10 and 10 x (1 - 0.8) are not quite 3 and 2."""
    module, session = start("cnn")
    module[0], module[1] = nn.Conv2d(1, 10, 3, padding=1), nn.BatchNorm2d(10)
    module[3] = nn.Conv2d(10, 10, 3, padding=1)
    module[4], module[8] = nn.BatchNorm2d(10), nn.Linear(10, 2)

    prune_channels(module, session, Channels(ratio=ratio))

    assert module[0].out_channels == module[3].out_channels == left


def test_ranked_together_the_total_is_exact_and_no_layer_is_emptied(start):
    module, session = start("cnn")
    with torch.no_grad():
        for each in (*module[0].parameters(), *module[1].parameters()):
            each.mul_(1e-6)  # every channel of the first layer ranks below those of the second
        module[1].weight.fill_(1e-6)

    prune_channels(module, session, Channels(ratio=0.5, scope="global"))

    assert module[0].out_channels + module[3].out_channels == 12
    assert module[0].out_channels >= 1


def test_dead_channels_that_tie_do_not_take_more_with_them(start):
    module, session = start("cnn")
    for index in (1, 4):  # everything after a batch norm of zeros has no gradient
        nn.init.zeros_(module[index].weight)
        nn.init.zeros_(module[index].bias)

    how = Channels(ratio=0.25, scope="global", importance="taylor", calibration=FEW)
    prune_channels(module, session, how)

    assert module[0].out_channels + module[3].out_channels == 18


@pytest.mark.parametrize("scope", ["uniform", "global"])
def test_grouped_convolutions_lose_the_same_channels_of_each_group(start, scope):
    module, session = start("cnn")
    module[3] = nn.Conv2d(8, 16, 3, padding=1, groups=2)
    module[6], module[8] = (
        nn.Sequential(nn.GroupNorm(4, 16), nn.AdaptiveAvgPool2d(1)),
        nn.Linear(16, 2),
    )

    structure = prune_channels(module, session, Channels(ratio=0.5, scope=scope))

    assert module[3].groups == 2
    kept = structure["keep"][structure["tensors"]["3.weight"]["0"]]
    assert [index % 4 for index in kept] == [index % 4 for index in kept[: len(kept) // 4]] * 4
    assert outputs(module, session).shape == (2, 2)


def test_widths_are_rounded_up_to_a_multiple(start):
    module, session = start("cnn")

    prune_channels(module, session, Channels(ratio=0.3, round_to=4))

    assert (module[0].out_channels, module[3].out_channels) == (8, 12)


def test_the_outputs_stay_also_where_the_task_names_no_head(start):
    module, session = start("cnn")
    assert session.task.head(module) == ()

    prune_channels(module, session, Channels(ratio=0.5))

    assert module[8].out_features == 2


def test_pruning_twice_is_recorded_as_two_steps(start):
    module, session = start("resnet")
    skeleton = copy.deepcopy(module)

    records = [prune_channels(module, session, Channels(ratio=0.25)) for _ in range(2)]

    for record in records:
        replay_channels(skeleton, record)
    skeleton.load_state_dict(module.state_dict())
    assert outputs(skeleton, session).equal(outputs(module, session))


@pytest.mark.parametrize(
    ("name", "how", "stock"),
    [
        ("resnet", Channels(ratio=0.5), True),
        ("convnext", Channels(ratio=0.5), True),
        ("mobilenet", Channels(ratio=0.5), False),
        ("resnet", Channels(ratio=0.4, scope="global"), False),
        ("cnn", Channels(ratio=0.5), False),
    ],
)
def test_the_configuration_says_the_widths_where_it_can(start, tmp_path, name, how, stock):
    module, session = start(name)
    before = getattr(module, "config", None) and module.config.to_json_string()

    assert channels.prune_channels(module, session, how).stock == stock

    if not stock:
        assert before is None or module.config.to_json_string() == before
        return
    module.save_pretrained(tmp_path / "plain")
    from transformers import AutoModelForImageClassification

    plain = AutoModelForImageClassification.from_pretrained(tmp_path / "plain")
    assert outputs(plain, session).equal(outputs(module, session))


def test_what_a_configuration_did_not_say_before_it_does_not_say_afterwards(start):
    """It is rebuilt from there: one half by a record, the other by the configuration, would not fit."""
    module, session = start("resnet")
    assert not channels.prune_channels(module, session, Channels(ratio=0.4, scope="global")).stock
    assert not channels.prune_channels(module, session, Channels(ratio=0.5)).stock


def test_the_networks_gradient_marks_and_mode_are_kept(start):
    module, session = start("resnet")
    frozen = "resnet.embedder.embedder.convolution.weight"
    module.get_parameter(frozen).requires_grad_(False)

    prune_channels(module, session, Channels(ratio=0.5))

    marks = {name: each.requires_grad for name, each in module.named_parameters()}
    assert not marks.pop(frozen)
    assert all(marks.values())
    assert all(each.grad is None for each in module.parameters())
    assert not module.training


class TestRefusals:
    def test_a_transformer(self, start):
        module, session = start("vit")
        with pytest.raises(IncompatibleStep, match="this is a transformer") as caught:
            prune_channels(module, session, Channels(ratio=0.5))
        assert "heads" in caught.value.fix

    def test_no_convolutions(self, start):
        _, session = start("cnn")
        with pytest.raises(IncompatibleStep, match="without convolutions"):
            prune_channels(nn.Linear(4, 2), session, Channels(ratio=0.5))

    @pytest.mark.parametrize(
        "how", [Channels(ratio=0.05), Channels(ratio=0.5, round_to=16)], ids=["share", "multiple"]
    )
    def test_a_share_that_is_not_one_channel_of_any_layer(self, start, how):
        module, session = start("cnn")
        with pytest.raises(IncompatibleStep, match="leaves out nothing: the widest layer, 3, has"):
            prune_channels(module, session, how)

    def test_nothing_but_outputs(self, start):
        _, session = start("cnn")
        network = nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten())
        with pytest.raises(IncompatibleStep, match="all belong to the outputs"):
            prune_channels(network, session, Channels(ratio=0.5))

    def test_a_trace_without_end(self, start, monkeypatch):
        module, session = start("cnn")
        before = copy.deepcopy(module.state_dict())

        def endless(*_, **__):
            while True:
                pass

        monkeypatch.setattr(channels, "TIME_LIMIT", 0.1)
        monkeypatch.setattr("torch_pruning.DependencyGraph.get_all_groups", endless)
        with pytest.raises(IncompatibleStep, match="did not come to an end"):
            prune_channels(module, session, Channels(ratio=0.5))
        assert all(value.equal(before[name]) for name, value in module.state_dict().items())

    def test_a_network_on_which_torch_pruning_really_never_ends(self, start, monkeypatch):
        """Two query heads for each key-value head; its configuration is hidden, or it would be refused before."""
        from transformers import LlamaConfig, LlamaForCausalLM

        class Hidden(nn.Module):
            def __init__(self):
                super().__init__()
                self.stem = nn.Conv1d(1, 1, 1)
                config = LlamaConfig(
                    vocab_size=8,
                    hidden_size=16,
                    intermediate_size=16,
                    num_hidden_layers=1,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                )
                self.inner = LlamaForCausalLM(config)

            def forward(self, x):
                ids = (self.stem(x.flatten(2)) > 0).long().flatten(1)
                return self.inner(input_ids=ids, use_cache=False).logits

        _, session = start("cnn")
        monkeypatch.setattr(channels, "TIME_LIMIT", 0.5)
        with pytest.raises(IncompatibleStep, match="did not come to an end"):
            prune_channels(Hidden().eval(), session, Channels(ratio=0.5))

    def test_a_network_that_does_not_run_afterwards(self, start):
        _, session = start("cnn")

        class Rigid(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = nn.Conv2d(1, 8, 8), nn.Linear(8, 2)

            def forward(self, x):
                return self.two(self.one(x).reshape(-1, 8))

        with pytest.raises(IncompatibleStep) as caught:
            prune_channels(Rigid().eval(), session, Channels(ratio=0.5))
        assert "leave `channels` out" in caught.value.fix

    def test_calibration_that_is_not_finite(self, start):
        module, session = start("cnn")
        with torch.no_grad():
            module[3].weight[0, 0, 0, 0] = float("nan")
        how = Channels(ratio=0.5, importance="activation", calibration=FEW)
        with pytest.raises(TrainingError, match="layer 3 gives values that are not finite"):
            prune_channels(module, session, how)


@pytest.mark.parametrize(
    "record",
    [
        {"keep": {"0": [0]}, "tensors": {"9.weight": {"0": "0"}}, "layers": {}},
        {"keep": {"0": [99]}, "tensors": {"0.weight": {"0": "0"}}, "layers": {}},
        {"keep": {"0": [0]}, "tensors": {"0.weight": {"7": "0"}}, "layers": {}},
        {"keep": {}, "tensors": {}, "layers": {"0": {"forward": 3}}},
        {"keep": {}, "tensors": {}, "layers": {"0": {"num_features": 3}}},
    ],
)
def test_a_record_of_another_network_is_refused(start, record):
    module, _ = start("cnn")
    with pytest.raises(IntegrityError, match="BAD_STRUCTURE"):
        replay_channels(module, record)


def test_tied_layers_stay_tied(start):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 8, 1)
            self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.two.weight = self.one.weight
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            x = self.stem(x)
            x = x + self.one(x).relu()
            x = x + self.two(x).relu()
            return self.head(x.mean(dim=(2, 3)))

    _, session = start("cnn")
    module = Twice().eval()
    prune_channels(module, session, Channels(ratio=0.5))
    assert module.two.weight is module.one.weight
    assert module.one.weight.shape == (4, 4, 3, 3)


class TestProof:
    """One forged child a claim."""

    @pytest.fixture
    def edge(self, start):
        module, session = start("resnet")
        parent = copy.deepcopy(module.state_dict())
        structure = prune_channels(module, session, Channels(ratio=0.5))
        return parent, dict(module.state_dict()), structure

    def failing(self, edge):
        found = channels.prove_channels(*edge, share=0.5)
        return [each.tensor for each in found if each.holds is False]

    name = "resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"

    def test_an_honest_child_passes(self, edge):
        assert self.failing(edge) == []

    def test_a_survivor_moved_by_a_millionth(self, edge):
        edge[1][self.name] = edge[1][self.name] + 1e-6
        assert self.failing(edge) == [self.name]

    def test_running_statistics_of_another_channel(self, edge):
        name = self.name.replace("convolution.weight", "normalization.running_mean")
        edge[1][name] = edge[1][name].flip(0)
        assert self.failing(edge) == [name]

    def test_an_index_swapped(self, edge):
        parent, child, structure = edge
        key = structure["tensors"][self.name]["0"]
        kept = structure["keep"][key]
        gone = next(index for index in range(8) if index not in kept)
        forged = {**structure, "keep": {**structure["keep"], key: sorted([*kept[1:], gone])}}
        assert self.failing((parent, child, forged))

    def test_channels_in_another_order_or_twice(self, edge):
        parent, child, structure = edge
        dims = structure["tensors"][self.name]
        for change in (lambda kept: kept[::-1], lambda kept: [kept[0], *kept[:-1]]):
            keep = {**structure["keep"], "odd": change(structure["keep"][dims["0"]])}
            tensors = {**structure["tensors"], self.name: {**dims, "0": "odd"}}
            forged = {**structure, "keep": keep, "tensors": tensors}
            made = {**child, self.name: child[self.name][range(len(keep["odd"]))]}
            with pytest.raises(IntegrityError, match="ascending"):
                self.failing((parent, made, forged))

    def test_an_index_that_is_not_there(self, edge):
        parent, child, structure = edge
        forged = {**structure, "keep": {key: [99] for key in structure["keep"]}}
        assert self.failing((parent, child, forged))

    def test_another_parent(self, edge):
        edge[0][self.name] = edge[0][self.name] * 2
        assert self.failing(edge) == [self.name]

    def test_a_tensor_more_or_less(self, edge):
        for forge in (
            lambda child: child.pop(self.name),
            lambda child: child.update(more=torch.ones(1)),
        ):
            parent, child, structure = edge
            child = dict(child)
            forge(child)
            assert self.failing((parent, child, structure))
