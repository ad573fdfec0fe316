from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reuselib.adapters.finetune import FineTune
from reuselib.errors import IncompatibleStep, SelectorError
from reuselib.training.plan import FitPlan, Schedule

SHORT = FitPlan(epochs=1, batch_size=16, learning_rate=1e-3)


def states(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def test_what_is_not_selected_stays_bit_for_bit(start, bert):
    module, session = start(bert)
    before = states(module)

    adapted = FineTune(train=("head", "block[-1]"), fit=SHORT).adapt(module, session)

    changed = {n for n, v in adapted.module.state_dict().items() if not v.equal(before[n])}
    assert changed
    assert all(n.startswith(("classifier.", "bert.encoder.layer.2.")) for n in changed)
    assert set(adapted.structure["trained"]) >= changed


def test_everything_is_trained_by_default(start, bert):
    module, session = start(bert)
    before = states(module)

    module = FineTune(fit=SHORT).adapt(module, session).module

    still = [n for n, p in module.named_parameters() if p.equal(before[n])]
    # words that no row uses have no gradient
    assert all("embeddings" in n for n in still)


def test_training_lowers_the_loss_and_raises_the_accuracy(start, bert):
    module, session = start(bert)
    before = session.evaluate(module)

    FineTune(fit=replace(SHORT, epochs=15, learning_rate=5e-3)).adapt(module, session)

    after = session.evaluate(module)
    assert after["loss"] < before["loss"]
    assert after["accuracy"] >= before["accuracy"] + 0.2


def test_learning_rates_fall_from_block_to_block(start, bert):
    module, session = start(bert)
    groups = []

    FineTune(layerwise_decay=0.5, fit=SHORT).adapt(module, _spying(session, groups))

    assert [group.lr_scale for group in groups] == [1.0, 0.5, 0.25, 0.125, 0.0625]
    assert "classifier.weight" in groups[0].names
    assert all(name.startswith("bert.encoder.layer.2.") for name in groups[1].names)
    assert all(".embeddings." in name for name in groups[4].names)
    names = [name for group in groups for name in group.names]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())


def test_small_rates_below_move_the_lower_blocks_less(start, bert):
    module, session = start(bert)
    before = states(module)

    FineTune(layerwise_decay=0.1, fit=SHORT).adapt(module, session)

    moved = [
        (module.state_dict()[name] - before[name]).abs().mean().item()
        for name in (f"bert.encoder.layer.{i}.output.dense.weight" for i in range(3))
    ]
    assert moved[0] < moved[1] / 5 < moved[2] / 25


def test_blocks_join_from_the_top_one_after_another(start, bert):
    module, session = start(bert)
    groups = []
    adapter = FineTune(
        unfreeze_every=2, train=("head", "tail", "block[:]"), fit=replace(SHORT, epochs=7)
    )

    adapter.adapt(module, _spying(session, groups))

    assert [group.from_epoch for group in groups] == [0, 2, 4, 6]


def test_gradual_unfreezing_keeps_a_block_until_its_epoch(start, bert):
    module, session = start(bert)
    before = states(module)
    # four steps an epoch, so the block takes part in the fifth only; a step of Adam moves a weight by the rate
    fit = replace(SHORT, epochs=2, max_steps=5, schedule=Schedule(lr_scheduler_type="constant"))

    FineTune(unfreeze_every=1, train=("head", "tail", "block[-1]"), fit=fit).adapt(module, session)

    moved = {n: float((v - before[n]).abs().max()) for n, v in module.state_dict().items()}
    assert 0 < moved["bert.encoder.layer.2.output.dense.weight"] < 1.1e-3
    assert moved["classifier.weight"] > 2e-3


def test_an_unfreezing_that_never_reaches_the_end_is_an_error(start, bert):
    module, session = start(bert)

    with pytest.raises(IncompatibleStep, match="reaches 2 of the 5 levels") as caught:
        FineTune(unfreeze_every=1, fit=replace(SHORT, epochs=2)).adapt(module, session)
    assert "at least 5 epochs" in caught.value.expected


def test_decay_over_a_single_level_is_an_error(start, bert):
    module, session = start(bert)

    with pytest.raises(IncompatibleStep, match="single level"):
        FineTune(train=("head",), layerwise_decay=0.5, fit=SHORT).adapt(module, session)


def test_a_new_head_that_is_left_out_is_an_error(start, bare_bert):
    module, session = start(bare_bert)

    with pytest.raises(IncompatibleStep, match=r"classifier\.bias is newly initialised"):
        FineTune(train=("block[-1]",), fit=SHORT).adapt(module, session)


def test_a_selector_that_matches_nothing_is_an_error(start, bert):
    module, session = start(bert)

    with pytest.raises(SelectorError, match="op:Conv2d"):
        FineTune(train=("op:Conv2d",), fit=SHORT).adapt(module, session)


@pytest.mark.parametrize(
    "options", [{"layerwise_decay": 1.5}, {"layerwise_decay": 0.0}, {"unfreeze_every": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FineTune(**options)


class TestProof:
    """One forged child a claim."""

    parent = {
        "a.weight": torch.ones(2, 2),
        "b.weight": torch.zeros(3),
        "n.running_mean": torch.ones(1),
    }
    structure = {"trained": ["b.weight"], "statistics": ["n.running_mean"]}

    def failing(self, child, parent=None):
        findings = FineTune().prove([parent or self.parent], child, self.structure)
        return [finding for finding in findings if finding.holds is False]

    def honest(self):
        return {
            "a.weight": torch.ones(2, 2),
            "b.weight": torch.full((3,), 0.5),
            "n.running_mean": torch.zeros(1),
        }

    def test_an_honest_child_passes(self):
        assert self.failing(self.honest()) == []

    def test_a_frozen_tensor_moved_by_a_millionth_fails(self):
        child = {**self.honest(), "a.weight": torch.ones(2, 2) + 1e-6}
        (failed,) = self.failing(child)
        assert "frozen" in failed.claim
        assert failed.tensor == "a.weight"

    def test_another_parent_of_equal_shape_fails(self):
        other = {**self.parent, "a.weight": torch.full((2, 2), 2.0)}
        assert [failed.tensor for failed in self.failing(self.honest(), other)] == ["a.weight"]

    def test_a_child_in_which_nothing_was_trained_fails(self):
        child = {**self.honest(), "b.weight": torch.zeros(3)}
        (failed,) = self.failing(child)
        assert "differs" in failed.claim

    def test_an_unexplained_tensor_fails(self):
        assert self.failing({**self.honest(), "c.weight": torch.ones(1)})[0].tensor == "c.weight"

    def test_a_lost_tensor_fails(self):
        child = {name: value for name, value in self.honest().items() if name != "a.weight"}
        assert self.failing(child)[0].tensor == "a.weight"

    def test_a_new_tensor_that_was_trained_passes(self):
        structure = {"trained": ["b.weight", "head.weight"], "statistics": ["n.running_mean"]}
        child = {**self.honest(), "head.weight": torch.ones(1)}
        findings = FineTune().prove([self.parent], child, structure)
        assert all(finding.holds for finding in findings)


def _spying(session, groups):
    """The session, with the groups of each fit noted."""

    class Spy:
        def __getattr__(self, name):
            return getattr(session, name)

        def fit(self, module, plan, *, groups: tuple = (), objective=None):
            noted.extend(groups)
            return {}

    noted = groups
    return Spy()
