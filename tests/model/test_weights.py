from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
import torch

from reuselib.evidence.whereabouts import Whereabouts
from reuselib.lineage.chain import read_ancestors, walk
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.measure.claims import same_bits
from reuselib.model.opening import open_network
from reuselib.model.weights import Layers, View, own_weights, parent_weights
from reuselib.tasks.text_classification import TextClassification


def sources(chain) -> Whereabouts:
    known = walk(chain.tuned.manifest, read_ancestors(chain.tuned.folder)).manifests
    return Whereabouts.of(store=chain.store, manifests=known)


TASK = TextClassification(labels=("bad", "good"))


class Counted(Mapping):
    """Says which tensors were read."""

    def __init__(self, **tensors: torch.Tensor) -> None:
        self.tensors, self.read = tensors, []

    def __getitem__(self, name: str) -> torch.Tensor:
        self.read.append(name)
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self.tensors


def test_a_view_renames_and_leaves_out():
    view = View(Counted(a=torch.ones(2), b=torch.zeros(1)), {"net.a": "a"})

    assert list(view) == ["net.a"]
    assert len(view) == 1
    assert view["net.a"].equal(torch.ones(2))
    assert "a" not in view
    with pytest.raises(KeyError):
        view["a"]


def test_a_view_gives_floats_in_fp32_and_leaves_the_rest():
    view = View(
        {"half": torch.tensor([1.5], dtype=torch.bfloat16), "count": torch.tensor([3])},
        {"half": "half", "count": "count"},
    )

    assert same_bits(view["half"], torch.tensor([1.5]))
    assert same_bits(view["count"], torch.tensor([3]))


def test_nothing_is_read_before_it_is_asked_for():
    lower, upper = Counted(a=torch.ones(1), b=torch.ones(1)), Counted(b=torch.zeros(1))
    layers = Layers(upper, View(lower, {"a": "a", "b": "b"}))

    assert ("a" in layers, "c" in layers, len(layers), list(layers)) == (True, False, 2, ["b", "a"])
    assert (lower.read, upper.read) == ([], [])

    assert layers["b"].equal(torch.zeros(1))
    assert (lower.read, upper.read) == ([], ["b"])
    assert layers["a"].equal(torch.ones(1))
    assert lower.read == ["a"]


def test_the_own_weights_of_a_whole_model_are_its_tensors(chain):
    weights = own_weights(chain.merged.folder, chain.merged.manifest, sources(chain))

    assert set(weights) == set(Tensors(chain.merged.folder))


def test_the_own_weights_of_an_adapter_come_with_those_of_its_base(chain):
    weights = own_weights(chain.lora.folder, chain.lora.manifest, sources(chain))

    base, adapter = set(Tensors(chain.base)), set(Tensors(chain.lora.folder))
    assert set(weights) == adapter | {f"bert.{name}" for name in base}
    name = "embeddings.word_embeddings.weight"
    assert same_bits(weights[f"bert.{name}"], Tensors(chain.base)[name])


def test_the_parent_is_seen_under_the_names_of_the_childs_network(chain):
    """The base has no head; the network before the step has, newly initialised, and the proof must not see it."""
    seen = parent_weights(chain.lora.manifest, sources(chain))
    network = open_network(chain.base, TASK, Store(chain.store))

    state = network.module.state_dict()
    assert set(seen) == set(state) - network.fresh
    assert all(same_bits(seen[name], state[name]) for name in seen)


def test_what_the_network_had_no_use_for_is_left_out(chain, tmp_path):
    """A base with another task's head, for instance."""
    from chains import SHORT, other_labels, run
    from reuselib.adapters.finetune import FineTune
    from reuselib.lineage.tensors import save_tensors
    from reuselib.testing.tiny import tiny_bert

    base = tiny_bert(tmp_path / "base", num_layers=1)
    extra = {**Tensors(base), "cls.predictions.bias": torch.ones(3)}
    extra = {
        f"bert.{name}" if not name.startswith("cls") else name: value.clone()
        for name, value in extra.items()
    }
    save_tensors(extra, base / "model.safetensors", {"format": "pt"})

    child = run(FineTune(fit=SHORT), base, tmp_path / "store", data=other_labels()).children[0]

    assert child.manifest.definition.internal.dropped == ("cls.predictions.bias",)
    assert child.manifest.definition.internal.prefix == ""
    seen = parent_weights(child.manifest, Whereabouts.of(store=tmp_path / "store"))
    assert set(seen) == {name for name in extra if not name.startswith("cls")}


@pytest.mark.parametrize("kind", ["finetune", "lora", "prune", "sparsify"])
def test_a_head_for_other_labels_is_not_the_parents_although_it_has_its_name(tmp_path, kind):
    """Each of these says of a new head that the parent has none, and its honest child has to pass."""
    from chains import SHORT, other_labels, run
    from reuselib.adapters.finetune import FineTune
    from reuselib.adapters.lora import LoRA
    from reuselib.adapters.prune import Prune
    from reuselib.adapters.sparsify import Sparsify
    from reuselib.evidence.prove import prove_step
    from reuselib.testing.tiny import tiny_bert

    steps = (FineTune(fit=SHORT), LoRA(fit=SHORT), Prune(ffn=0.5), Sparsify(sparsity=0.5))
    step = next(each for each in steps if each.kind == kind)
    base, store = tiny_bert(tmp_path / "base", num_layers=1, head=True), tmp_path / "store"

    child = run(step, base, store, data=other_labels()).children[0]

    internal = child.manifest.definition.internal
    assert internal.dropped == internal.fresh == ("classifier.bias", "classifier.weight")
    assert all(finding.holds for finding in prove_step(child.folder, store=Store(store)).findings)


def test_a_root_has_no_parent(chain):
    with pytest.raises(ValueError, match="no parent"):
        parent_weights(chain.execution.plan.base.manifest, sources(chain))
