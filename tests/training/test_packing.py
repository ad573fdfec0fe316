from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from toys import Points

from reuselib.errors import IncompatibleStep, TrainingError
from reuselib.tasks.causal_lm import CausalLM
from reuselib.testing.tiny import tiny_gpt2, tiny_llama, tiny_rows
from reuselib.training.fitting import fit
from reuselib.training.job import Job
from reuselib.training.packing import bins, laid_out, two_rows
from reuselib.training.plan import FitPlan, Optimizer

TASK = CausalLM(max_length=24)
PLAN = FitPlan(packing=True, batch_size=8, max_steps=3, learning_rate=1e-3)


@pytest.fixture(scope="module", params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def loaded(request, tmp_path_factory):
    return TASK.load(request.param(tmp_path_factory.mktemp("base") / "model"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("base") / "model")


def calm(module: nn.Module) -> nn.Module:
    """Without dropout, whose masks are drawn for other shapes when rows are packed."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0
    return module


def examples_of(loaded, number: int = 8):
    return TASK.encode(tiny_rows(number), loaded.processor)


def test_bins_hold_every_item_once_and_no_more_than_they_can():
    lengths = [int(each) for each in np.random.default_rng(0).integers(1, 20, 200)]

    found = bins(lengths, 24)

    assert sorted(item for row in found for item in row) == list(range(200))
    assert all(sum(lengths[item] for item in row) <= 24 for row in found)
    assert len(found) <= 11 / 9 * -(-sum(lengths) // 24) + 1


def test_bins_are_filled_alike_so_that_little_is_padded():
    found = bins([9, 8, 7, 6, 5], 24)

    assert sorted(sum([9, 8, 7, 6, 5][item] for item in row) for row in found) == [15, 20]


def test_bins_that_cannot_be_filled_alike_are_filled_one_after_another():
    lengths = [
        10,
        7,
        6,
        5,
        3,
        3,
    ]  # each to the least filled gives 10 + 3, 7 + 3 and 6 + 5, which is too much

    found = bins(lengths, 12)

    assert sorted(sum(lengths[item] for item in row) for row in found) == [10, 12, 12]
    assert bins([], 24) == []


def test_a_packed_batch_has_the_targets_of_a_padded_one(loaded):
    examples = examples_of(loaded)

    packed = TASK.pack(examples, loaded.processor)
    padded = TASK.collate(examples, loaded.processor)

    assert packed["input_ids"].numel() < padded["input_ids"].numel()
    assert TASK.num_targets(packed) == TASK.num_targets(padded)
    assert sorted(packed["labels"][packed["labels"] >= 0].tolist()) == sorted(
        token for example in examples for token in example["input_ids"].tolist()[1:]
    )


def test_loss_and_gradients_are_those_of_each_text_alone(loaded):
    examples = examples_of(loaded)

    def gradients(*batches):
        loaded.module.zero_grad()
        losses = [TASK.loss(TASK.forward(loaded.module, batch), batch) for batch in batches]
        torch.stack(losses).sum().backward()
        return sum(losses).item(), [p.grad.clone() for p in loaded.module.parameters()]

    loss, packed = gradients(TASK.pack(examples, loaded.processor))
    reference, alone = gradients(*(TASK.collate([each], loaded.processor) for each in examples))

    assert loss == pytest.approx(reference, rel=1e-5)
    for one, other in zip(packed, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_no_text_learns_anything_from_another(loaded):
    """The gradient of one text's loss with respect to the inputs of all others is exactly nought."""
    examples = sorted(examples_of(loaded, 3), key=TASK.length)[:2][::-1]
    batch = TASK.pack(examples, loaded.processor)
    assert len(batch["input_ids"]) == 1, "they lie in one row"
    border = len(examples[0]["input_ids"])
    vectors = loaded.module.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()

    logits = loaded.module(
        inputs_embeds=vectors, position_ids=batch["position_ids"], use_cache=False
    ).logits
    second = batch["labels"].clone()
    second[:, :border] = -100
    (gradient,) = torch.autograd.grad(TASK.loss(logits, {"labels": second}), vectors)

    assert gradient[0, border:].abs().max() > 0
    assert (gradient[0, :border] == 0).all()


def test_training_on_packed_rows_gives_the_weights_of_padded_ones(loaded):
    import copy

    examples = examples_of(loaded, 16)
    calm(loaded.module)
    trained = {}
    for packing in (False, True):
        module = copy.deepcopy(loaded.module)
        plan = FitPlan(
            packing=packing, batch_size=8, max_steps=3, learning_rate=1e-3,
            gradient_accumulation_steps=2, optimizer=Optimizer(eps=1e-3),
        )  # fmt: skip
        result = fit(module, plan, Job(task=TASK, processor=loaded.processor, train=examples))
        trained[packing] = (result.metrics["train_loss"], dict(module.named_parameters()))

    assert trained[True][0] == pytest.approx(trained[False][0], rel=1e-5)
    for name, value in trained[False][1].items():
        torch.testing.assert_close(trained[True][1][name], value, rtol=1e-4, atol=1e-6)


def test_a_network_that_lets_rows_run_into_one_another_is_refused(loaded, monkeypatch):
    job = Job(task=TASK, processor=loaded.processor, train=examples_of(loaded))

    def mixing(self, module, batch):
        """Positions that go on, as code has them that was written without packing in mind."""
        ids = batch["input_ids"]
        return module(input_ids=ids, use_cache=False).logits

    monkeypatch.setattr(CausalLM, "forward", mixing)

    with pytest.raises(IncompatibleStep, match="the second of two packed rows comes out different"):
        fit(loaded.module, PLAN, job)


def test_a_network_that_takes_no_positions_is_refused(loaded, monkeypatch):
    job = Job(task=TASK, processor=loaded.processor, train=examples_of(loaded))

    def plain(self, module, batch):
        def forward(input_ids, attention_mask=None):
            return module(input_ids=input_ids, attention_mask=attention_mask)

        return forward(**self.inputs(batch)).logits

    monkeypatch.setattr(CausalLM, "forward", plain)

    with pytest.raises(IncompatibleStep, match=r"does not take packed rows.*position_ids"):
        fit(loaded.module, PLAN, job)


def test_a_task_that_cannot_pack_says_so():
    examples = [{"x": np.zeros(2, np.float32), "y": 0}] * 4

    with pytest.raises(TrainingError, match="`packing` has no meaning for the task 'points'"):
        fit(nn.Linear(2, 2), PLAN, Job(task=Points(), processor=None, train=examples))


def test_a_teacher_and_packing_do_not_go_together(llama):
    loaded = TASK.load(llama)
    job = Job(
        task=TASK, processor=loaded.processor, train=examples_of(loaded), attach=lambda rows: {}
    )

    with pytest.raises(TrainingError, match="does not go with what teachers say"):
        fit(loaded.module, PLAN, job)


def test_without_packing_rows_are_padded(llama):
    loaded = TASK.load(llama)
    examples = examples_of(loaded)

    batch = laid_out(FitPlan(), TASK, loaded.processor, examples)

    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    assert len(batch["input_ids"]) == len(examples)


def test_the_rows_that_are_tried_fit_into_one(llama):
    loaded = TASK.load(llama)
    rows = two_rows(examples_of(loaded, 32), TASK)

    assert TASK.length(rows[0]) >= TASK.length(rows[1])
    assert len(TASK.pack(rows, loaded.processor)["input_ids"]) == 1
