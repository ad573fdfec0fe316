from __future__ import annotations

import hashlib
import struct
from typing import Any

import pytest
import torch
from torch import nn
from toys import Points, Tokens, network, points, tagger, token_rows

from reuselib.lineage.trail import Trail, dump_trails, parse_trails
from reuselib.training.batching import plan_batches
from reuselib.training.fitting import fit
from reuselib.training.job import FitResult, Job
from reuselib.training.plan import EarlyStopping, FitPlan, ParameterGroup
from reuselib.training.trail import Recorder, rounded_up, tensor_digests

PLAN = FitPlan(epochs=1, batch_size=8, learning_rate=1e-2, group_by_length=False)


def trained(module: nn.Module, plan: FitPlan = PLAN, **job: Any) -> FitResult:
    rows = job.pop("rows", token_rows(96))
    return fit(module, plan, Job(task=Tokens(), processor=None, train=rows, seed=3, **job))


def found(result: FitResult) -> Trail:
    assert result.trail is not None
    return result.trail


def by_hand(tensors: dict[str, torch.Tensor]) -> str:
    """`stateHash1` of fp32 tensors, as the documentation has it."""
    digest = hashlib.sha256(b"stateHash1\n")
    for name in sorted(tensors, key=str.encode):
        value = tensors[name].detach()
        raw = struct.pack(f"<{value.numel()}f", *value.flatten().tolist())
        shape = ",".join(map(str, value.shape))
        digest.update(f'{hashlib.sha256(raw).hexdigest()}  F32  {shape}  "{name}"\n'.encode())
    return digest.hexdigest()


def test_the_first_and_the_last_state_are_those_of_the_weights(monkeypatch):
    states = []
    see = Recorder.see

    def copied(self, step, *args):
        states.append({n: p.detach().clone() for n, p in self.module.named_parameters()})
        see(self, step, *args)

    monkeypatch.setattr(Recorder, "see", copied)
    module = tagger()
    module.embedding.requires_grad_(False)
    one = found(trained(module))

    assert one.num_steps == 12
    assert one.num_rows == 96
    assert one.steps[0] == 1
    assert one.steps[-1] == 12
    assert one.tensors == ("head.bias", "head.weight", "norm.bias", "norm.weight")
    for entry in one.entries:
        state = states[entry.step - 1]
        assert entry.state == by_hand({name: state[name] for name in one.tensors})
    assert parse_trails(dump_trails([one])) == (one,)


def test_rows_are_those_of_the_steps_since_the_entry_before(monkeypatch):
    monkeypatch.setattr(Recorder, "_chosen", lambda self: 4)
    one = found(trained(tagger()))

    assert one.steps == (1, 8, 12)
    batches = plan_batches(None, 96, 8, seed=3, epoch=0)
    for entry, (start, end) in zip(one.entries, [(0, 1), (1, 8), (8, 12)], strict=True):
        text = "".join(",".join(map(str, batch)) + "\n" for batch in batches[start:end])
        assert entry.rows == hashlib.sha256(text.encode()).hexdigest()


def test_weights_are_the_same_with_and_without():
    seen, unseen = tagger(dropout=0.3), tagger(dropout=0.3)

    assert trained(seen).trail is not None
    assert trained(unseen, trail=False).trail is None
    for name, value in seen.state_dict().items():
        assert torch.equal(value, unseen.state_dict()[name]), name


def test_the_same_training_leaves_the_same_states(monkeypatch):
    monkeypatch.setattr(Recorder, "_chosen", lambda self: 5)
    first, second = (found(trained(tagger(dropout=0.2))) for _ in range(2))
    rows = token_rows(96)
    rows[40] = {**rows[40], "labels": (rows[40]["labels"] + 1) % 3}
    other = found(trained(tagger(dropout=0.2), rows=rows))
    batches = plan_batches(None, 96, 8, seed=3, epoch=0)
    touched = next(at for at, batch in enumerate(batches, start=1) if 40 in batch)

    assert first == second
    assert [each.rows for each in first.entries] == [each.rows for each in other.entries]
    for one, two in zip(first.entries, other.entries, strict=True):
        assert (one.state == two.state) == (one.step < touched)


def test_buffers_count_from_when_they_change():
    module = nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.BatchNorm1d(2, affine=False)
    )
    module.register_buffer("still", torch.zeros(3))
    job = Job(task=Points(), processor=None, train=points(64))
    one = found(fit(module, FitPlan(epochs=1, batch_size=16), job))

    assert "1.running_mean" in one.tensors
    assert "3.num_batches_tracked" in one.tensors
    assert "still" not in one.tensors


def test_a_parameter_that_opens_later_is_in_it_from_the_start():
    group = ParameterGroup(names=("embedding.weight",), from_epoch=1)
    one = found(trained(tagger(), FitPlan(epochs=2, batch_size=48), groups=(group,)))

    assert "embedding.weight" in one.tensors
    assert one.steps == (1, 4)


def test_early_stopping_ends_the_trail_where_the_training_ended():
    plan = FitPlan(
        epochs=50, batch_size=48, learning_rate=1.0, early_stopping=EarlyStopping(patience=1)
    )
    result = trained(tagger(), plan, validation=token_rows(30, seed=1))

    assert result.metrics["num_steps"] < 100
    assert found(result).num_steps == found(result).steps[-1] == result.metrics["num_steps"]
    assert parse_trails(dump_trails([found(result)])) == (result.trail,)


def test_how_often_follows_from_what_it_costs():
    """A step of 1 s and a digest of 0.1 s: a digest every 10 steps takes 1 %."""
    recorder = Recorder(network(), ["0.weight"], 500, 64)
    recorder.seconds = 0.1
    recorder._times = [9.0, 1.0, 1.0, 1.1, 0.9]

    assert recorder._chosen() == 10
    recorder._times, recorder.num_steps = [9.0, 100.0], 30_000
    assert recorder._chosen() == 50  # rather than more entries than are read


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, 1),
        (0.3, 1),
        (1, 1),
        (1.1, 2),
        (2, 2),
        (2.1, 5),
        (6, 10),
        (11, 20),
        (101, 200),
        (501, 1000),
    ],
)
def test_intervals_are_round(number, expected):
    assert rounded_up(number) == expected


def test_digests_in_memory_are_those_on_disk(tmp_path):
    from reuselib.lineage.inventory import take_inventory
    from reuselib.lineage.rows import tensor_hash
    from reuselib.lineage.tensors import save_tensors

    tensors = {
        "a": torch.randn(3, 5),
        "b": torch.randn(4, 6).bfloat16().t(),
        "c": torch.tensor(7),
        "d": torch.zeros(0, 2),
        "e": torch.tensor([True, False]),
    }
    save_tensors(tensors, tmp_path / "model.safetensors")

    assert tensor_hash(tensor_digests(tensors)) == take_inventory(tmp_path).digests.tensor_hash
