from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch

from reuselib.errors import IncompatibleStep, TrainingError
from reuselib.network import axes, cutting
from reuselib.network.axes import Keep
from reuselib.network.families import family
from reuselib.pruning.budget import Pool, head_pools, unit_pools
from reuselib.pruning.importance import by_weights
from reuselib.pruning.sensitivity import NAME, SHARES, fits, profile, recalled, shared_out
from reuselib.tasks.causal_lm import CausalLM
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.tiny import tiny_bert, tiny_gpt2, tiny_llama, tiny_rows


def prepared(folder, task, build):
    loaded = task.load(build(folder))
    if isinstance(task, TextClassification):
        task = TextClassification(labels=("bad", "good"))
    examples = task.encode(tiny_rows(24), loaded.processor)
    rows = [task.collate(examples[at : at + 8], loaded.processor) for at in range(0, 24, 8)]
    with torch.no_grad():
        for name, parameter in loaded.module.named_parameters():
            if parameter.ndim > 1 and "embed" not in name:
                parameter.mul_(6)
    return loaded.module, task, rows


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    build = lambda folder: tiny_bert(folder, head=True)  # noqa: E731
    return prepared(tmp_path_factory.mktemp("bert"), TextClassification(), build)


def pools_of(module):
    found, scores = family(module), by_weights(module, hidden=False)
    return [*head_pools(found, found.blocks, scores), *unit_pools(found.blocks, scores)]


def outputs(module, task, rows):
    with torch.no_grad():
        return [task.forward(module, batch) for batch in rows]


def test_silent_units_cost_what_cut_units_cost(bert):
    """The profile against the network that is really smaller, by the formulas of KL and agreement."""
    module, task, rows = bert
    pools = pools_of(module)

    found = profile(module, task, rows, pools)["pools"]

    before = torch.cat(outputs(module, task, rows)).log_softmax(dim=-1)
    for pool in pools:
        for index, share in enumerate(SHARES[:-1]):
            stay = pool.keep(round(pool.size * share))
            cut = copy.deepcopy(module)
            kind = "heads" if "heads" in pool.name else "units"
            keep = Keep(**{kind: dict.fromkeys(pool.places, stay)})
            cutting.cut(cut, axes.plan(cut, keep))
            after = torch.cat(outputs(cut, task, rows)).log_softmax(dim=-1)
            kl = (before.exp() * (before - after)).sum(dim=-1).mean().item()
            agreement = (before.argmax(-1) == after.argmax(-1)).double().mean().item()
            assert found[pool.name]["kl"][index] == pytest.approx(kl, rel=1e-3, abs=1e-7)
            assert found[pool.name]["agreement"][index] == pytest.approx(agreement)


def test_the_network_is_left_as_it_was(bert):
    module, task, rows = bert
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.train()

    profile(module, task, rows, pools_of(module))

    assert module.training
    assert all(value.equal(before[name]) for name, value in module.state_dict().items())
    module.eval()


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2])
def test_language_models_are_measured_on_real_positions(tmp_path, build):
    module, task, rows = prepared(tmp_path, CausalLM(), build)
    pools = pools_of(module)

    found = profile(module, task, rows, pools)

    assert fits(found, pools)
    reached = [each["kl"][-1] for each in found["pools"].values()]
    assert all(kl > 1e-6 for kl in reached)
    hidden = copy.deepcopy(rows)
    for batch in hidden:  # what stands at padded positions is nobody's business
        batch["input_ids"][batch["attention_mask"] == 0] = 5
    again = profile(module, task, hidden, pools)
    for name, each in found["pools"].items():
        assert again["pools"][name]["kl"] == pytest.approx(each["kl"], rel=1e-4)


def test_one_number_is_compared_with_its_spread(tmp_path):
    module, _, rows = prepared(
        tmp_path, TextClassification(), lambda f: tiny_bert(f, head=True, num_labels=1)
    )
    numbers = SimpleNamespace(
        answers_positions=False,
        beliefs=lambda observed: None,
        observe=lambda logits, batch: {},
        forward=lambda module, batch: (
            module(**{name: value for name, value in batch.items() if name != "labels"}).logits
        ),
    )
    pools = pools_of(module)[-1:]

    found = profile(module, numbers, rows, pools)["pools"][pools[0].name]

    before = torch.cat(outputs(module, numbers, rows)).flatten().double()
    down = module.bert.encoder.layer[-1].output.dense.weight.data
    kept = down.clone()
    down.zero_()
    after = torch.cat(outputs(module, numbers, rows)).flatten().double()
    down.copy_(kept)
    spread = before.std(correction=0)
    assert found["kl"][-1] == pytest.approx(
        (((before - after) / spread).square().mean() / 2).item(), rel=1e-4
    )


def made_up(*costs, size=8, places=1, groups=1):
    """Pools of units whose measured costs are given."""
    pools = [
        Pool(f"part{at}:units", torch.arange(size).double(), (f"part{at}",) * places, groups)
        for at in range(len(costs))
    ]
    found = {
        pool.name: {"units": size, "kl": list(kl)} for pool, kl in zip(pools, costs, strict=True)
    }
    return pools, {"shares": list(SHARES), "pools": found}


def test_the_loss_is_shared_out_where_it_costs_least():
    pools, found = made_up([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0], [0.01, 0.02, 3.0, 9.0])

    assert shared_out(pools, 0.5, found) == {
        "part0:units": 7,
        "part1:units": 1,
        "part2:units": 4,
    }


def test_the_share_is_kept_and_something_stays_everywhere():
    pools, found = made_up([0.0] * 4, [0.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0])

    for share in (0.1, 0.3, 0.6, 0.85):
        lost = shared_out(pools, share, found)
        assert sum(lost.values()) == int(24 * share)
        assert max(lost.values()) < 8


def test_the_hull_looks_beyond_a_bump():
    """A first quarter that costs much is worth it if the rest then costs nothing."""
    pools, found = made_up([0.4, 0.4, 0.4, 0.4], [0.2, 0.4, 0.6, 0.8])

    assert shared_out(pools, 7 / 16, found) == {"part0:units": 7, "part1:units": 0}


def test_groups_go_whole_and_shared_pools_count_for_each_place():
    pools, found = made_up([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0], groups=4, places=2)

    lost = shared_out(pools, 0.4, found)

    assert lost == {"part0:units": 6, "part1:units": 0}
    assert all(number % 2 == 0 for number in lost.values())


def test_rounding_is_in_favour_of_what_stays():
    pools, found = made_up([0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0])

    assert shared_out(pools, 0.3, found, round_to=4) == {"part0:units": 4, "part1:units": 0}


def test_a_share_that_leaves_nothing_out_is_refused():
    pools, found = made_up([0.1, 0.2, 0.3, 0.4])

    with pytest.raises(IncompatibleStep, match="is none that can go"):
        shared_out(pools, 0.01, found)


def test_a_profile_fits_the_pools_it_was_made_for():
    pools, found = made_up([0.1] * 4, [0.2] * 4)
    larger, _ = made_up([0.1] * 4, size=9)

    assert fits(found, pools)
    assert fits(found, pools[:1])
    assert not fits(found, larger)
    assert not fits({**found, "shares": [0.5]}, pools)
    assert not fits({"shares": list(SHARES), "pools": {"part0:units": None}}, pools)
    assert not fits(None, pools)


def test_a_profile_is_recalled_only_for_the_same_setting():
    pools, found = made_up([0.1] * 4)
    stored = {**found, "rows": 32}
    run = SimpleNamespace(recall=lambda name: stored if name == NAME else None)

    assert recalled(run, {"rows": 32}, pools) == stored
    assert recalled(run, {"rows": 64}, pools) is None
    assert recalled(SimpleNamespace(recall=lambda name: None), {"rows": 32}, pools) is None


def test_outputs_that_are_not_finite_are_refused(bert):
    module, task, rows = bert
    broken = copy.deepcopy(module)
    broken.classifier.bias.data[0] = torch.nan

    with pytest.raises(TrainingError, match="not finite"):
        profile(broken, task, rows, pools_of(module))
