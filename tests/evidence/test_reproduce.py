from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from chains import LORA, MERGE, SHORT, TUNE, Chain, flip, modified, run
from reuselib.adapter import Adapted, Adapter, ModelRef
from reuselib.adapters.distill import Distill
from reuselib.adapters.finetune import FineTune
from reuselib.adapters.merge import Merge
from reuselib.adapters.prune import Prune
from reuselib.adapters.quantize import Quantize
from reuselib.adapters.sparsify import Sparsify
from reuselib.cli import main
from reuselib.cli.replay import show_reproduction
from reuselib.data import Data, Splits
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import Child, execute
from reuselib.derivation.plan import plan
from reuselib.errors import IntegrityError, SourceError, TrainingError
from reuselib.evidence import reproduce as module
from reuselib.evidence.recorded import Recorded
from reuselib.evidence.reproduce import reproduce
from reuselib.evidence.reproduction import Reproduction
from reuselib.evidence.windows import Window
from reuselib.lineage import canonical
from reuselib.lineage.record import ENVIRONMENT
from reuselib.lineage.store import Store
from reuselib.lineage.tensors import Tensors
from reuselib.lineage.trail import TRAIL, dump_trails, parse_trails
from reuselib.tasks.text_classification import TextClassification
from reuselib.testing.forging import part, restate, retouch
from reuselib.testing.tiny import tiny_rows
from reuselib.training.lessons import Losses
from reuselib.training.plan import EarlyStopping, FitPlan

NAME = "bert.encoder.layer.1.output.dense.weight"
STATES = FitPlan(epochs=3, batch_size=16, learning_rate=1e-2)


def again(chain: Chain, child: Child | Path, **options: Any) -> Reproduction:
    folder = child if isinstance(child, Path) else child.folder
    return reproduce(folder, **{"data": chain.rows, "store": chain.store, **options})


@pytest.fixture
def copy(chain, tmp_path):
    """The fine-tuned child in a folder that may be damaged."""
    return Path(shutil.copytree(chain.tuned.folder, tmp_path / "copy"))


@pytest.fixture
def elsewhere(monkeypatch):
    """Another machine, as far as anybody can tell."""
    real = module.environment

    def other() -> dict[str, Any]:
        return {**real(), "cpu": {"model": "another", "instructionSets": []}}

    monkeypatch.setattr(module, "environment", other)


# Honest children.


@pytest.mark.parametrize("step", ["lora", "merged", "tuned"])
def test_an_honest_step_gives_the_same_bits(chain, step):
    found = again(chain, getattr(chain, step))

    assert found.verdict == "bit-equal", found
    assert found.ok
    assert found.tier == "replayed"
    assert found.weights is not None
    assert found.weights.num_equal == found.weights.num_tensors > 10
    assert not found.environment
    assert not found.problems
    assert found.first_step is None


@pytest.mark.parametrize(
    "steps",
    [
        (TUNE, Prune(heads=0.5, ffn=0.5), Distill(losses=Losses(logits=0.5, task=0.5), fit=SHORT)),
        (LORA, MERGE, Sparsify(sparsity=0.5), TUNE),
        (TUNE, Quantize()),
        (TUNE, Quantize(scheme="bf16")),
        (Quantize(fit=SHORT),),
        (FineTune(fit=replace(SHORT, epochs=3, early_stopping=EarlyStopping(patience=1))),),
    ],
    ids=[
        "prune and distill",
        "sparsify and train",
        "int8",
        "bf16",
        "with rounding",
        "early stopping",
    ],
)
def test_every_kind_of_step_gives_the_same_bits(chain, tmp_path, steps):
    made = run(steps, chain.base, tmp_path / "store", data=chain.rows)

    for child in made.children:
        found = again(chain, child, store=tmp_path / "store")
        assert found.verdict == "bit-equal", (child.adapter, found.why, found.files)


UPPER = FineTune(train=("head", "tail", "block[-1:]"), fit=replace(STATES, frozen="eval"))


@pytest.mark.parametrize("room", [2**33, 0])
def test_frozen_blocks_run_as_often_as_they_did(chain, tmp_path, room):
    """Whether what they give is kept decides the last bits, and so the record says how much room there was."""
    runtime = Runtime(store=tmp_path / "store", cache_bytes=room, keep_states=2)
    settled = chain.plan((UPPER,), store=runtime.store)
    child = execute(settled, runtime).children[-1]
    facts = child.manifest.definition.internal.facts
    assert facts["cache_bytes"] == room
    assert facts["prefix_cache"].startswith("before" if room == 2**33 else "none")

    assert again(chain, child, store=tmp_path / "store").verdict == "bit-equal"
    last = again(chain, child, store=tmp_path / "store", window=Window(2, "last"))
    assert last.verdict == "as recorded"
    shutil.rmtree(tmp_path / "store" / "activations", ignore_errors=True)
    assert again(chain, child, store=tmp_path / "store").verdict == "bit-equal"


@pytest.mark.parametrize("room", [-1, True, "all of it"])
def test_a_record_cannot_ask_for_any_kind_of_room(copy, room):
    restate(copy, lambda s: part(s, "internalParameters")["facts"].update(cache_bytes=room))

    assert Recorded.read(copy).cache_bytes == 0


def test_an_average_finds_its_other_parent(chain, tmp_path):
    other = run(replace(TUNE, train=("head",)), chain.base, chain.store, data=chain.rows)
    ref = ModelRef(f"store:{other.children[-1].folder.name}")
    made = run((TUNE, Merge(models=(ref,))), chain.base, chain.store, data=chain.rows)

    assert again(chain, made.children[-1]).verdict == "bit-equal"


def test_parents_are_found_in_folders_that_are_named(chain, tmp_path):
    """On another machine: a copy of the child, one of each ancestor, and an empty store."""
    places = [
        Path(shutil.copytree(each, tmp_path / name))
        for name, each in (("b", chain.base), ("l", chain.lora.folder))
    ]
    store = tmp_path / "empty"

    assert again(chain, chain.merged, parents=places, store=store).verdict == "bit-equal"
    assert not list(store.rglob("*.safetensors"))


def test_rows_are_found_where_the_manifest_says(chain, tmp_path):
    data = Data(source="sample:senses", train="train[:48]", test="test[:16]")
    child = run(TUNE, chain.base, tmp_path / "store", data=data).children[0]

    assert reproduce(child.folder, store=tmp_path / "store").verdict == "bit-equal"


def test_rows_are_found_where_the_caller_says(chain, tmp_path):
    lines = "".join(json.dumps(row) + "\n" for row in tiny_rows(40))
    (tmp_path / "rows.jsonl").write_text(lines)
    data = Data(source=str(tmp_path / "rows.jsonl"), train="train[:32]", holdout=0.2)
    child = run(TUNE, chain.base, tmp_path / "store", data=data).children[0]
    (tmp_path / "other").mkdir()
    (tmp_path / "rows.jsonl").rename(tmp_path / "other" / "moved.jsonl")
    moved = str(tmp_path / "other" / "moved.jsonl")

    assert reproduce(child.folder, store=tmp_path / "store").verdict == "cannot check"
    assert reproduce(child.folder, data=moved, store=tmp_path / "store").verdict == "bit-equal"
    with pytest.raises(SourceError):
        reproduce(child.folder, data="./nowhere.jsonl", store=tmp_path / "store")


def test_nothing_is_left_behind_and_nothing_is_changed(chain):
    before = modified(chain.tuned.folder), modified(chain.store / "models")

    again(chain, chain.tuned)

    assert (modified(chain.tuned.folder), modified(chain.store / "models")) == before
    assert not [path for path in (chain.store / "tmp").iterdir() if path.is_dir()]


def test_the_steps_before_are_named_with_what_they_are_worth(chain):
    found = again(chain, chain.tuned)

    assert [(relation, tier) for _, relation, tier in found.history] == [
        ("merge", "recorded"),
        ("adapter", "recorded"),
    ]
    assert any("2 steps before" in line for line in found.unchecked)
    assert any("who made it" in line for line in found.unchecked)


def test_it_is_computed_with_as_many_threads_as_recorded(chain, monkeypatch):
    seen = []
    real = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (seen.append(n), real(n)))
    before = torch.get_num_threads()

    again(chain, chain.tuned)

    assert set(seen) <= {1, before}
    assert chain.tuned.manifest.definition.internal.facts["num_threads"] in seen
    assert torch.get_num_threads() == before


# Others.


def test_a_weight_that_was_moved_is_found_and_named(chain, copy):
    value = Tensors(copy)[NAME].clone()
    value[0, 0] += 1e-6
    retouch(copy, {NAME: value})

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert found.tier == "broken"
    assert found.weights is not None
    assert found.weights.first == found.weights.worst == NAME
    assert found.weights.max_abs == pytest.approx(1e-6, rel=0.1)
    assert found.weights.num_equal == found.weights.num_tensors - 1
    assert found.first_step is None


def test_a_window_sees_that_the_trail_ends_in_other_weights(chain, copy):
    value = Tensors(copy)[NAME].clone()
    value[0, 0] += 1e-6
    retouch(copy, {NAME: value})

    found = again(chain, copy, window=Window(1))

    assert found.verdict == "differs"
    assert [problem.code for problem in found.problems] == ["BAD_TRAIL"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda s: part(s, "externalParameters").update(seed=1),
        lambda s: part(s, "externalParameters")["recipe"]["fit"].update(learning_rate=0.02),
        lambda s: part(s, "externalParameters")["recipe"]["fit"].update(epochs=2),
        lambda s: part(s, "externalParameters")["recipe"].update(train=["head"]),
    ],
    ids=["seed", "rate", "epochs", "what was trained"],
)
@pytest.mark.parametrize("window", [None, Window(2)], ids=["whole", "window"])
def test_a_false_claim_about_the_training_is_found(chain, copy, forge, window):
    restate(copy, forge)

    assert again(chain, copy, window=window).verdict == "differs"


def test_a_false_structure_over_true_weights_is_found(chain, copy):
    restate(copy, lambda s: part(s, "internalParameters").update(fresh=["classifier.bias"]))

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert "`fresh`" in found.why


def test_another_file_over_true_weights_is_found(chain, copy):
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "bad"}
    (copy / "config.json").write_text(json.dumps(config))
    restate(copy)

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert found.files == ("config.json",)


def test_a_trail_that_leads_elsewhere_is_found(chain, copy):
    trail = parse_trails((copy / TRAIL).read_bytes())[0]
    last = replace(trail.entries[-1], state="a" * 64)
    forged = replace(trail, entries=(*trail.entries[:-1], last))
    (copy / TRAIL).write_bytes(dump_trails([forged]))
    restate(copy)

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert (found.last_equal_step, found.first_step) == (1, 2)
    assert again(chain, copy, window=Window(1)).verdict == "differs"  # it ends in other weights


def test_a_record_that_does_not_fit_is_refused_at_once(chain, copy):
    flip(copy / "model.safetensors")

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert [problem.code for problem in found.problems] == ["DIGEST_MISMATCH"]


def test_other_rows_are_refused_before_anything_is_computed(chain, monkeypatch):
    monkeypatch.setattr(module, "_Attempt", None)
    rows = [dict(row) for row in chain.rows.train]
    rows[7]["label"] = {"good": "bad", "bad": "good"}[rows[7]["label"]]

    found = again(chain, chain.tuned, data=Splits.of(rows, chain.rows.test))

    assert found.verdict == "differs"
    (problem,) = found.problems
    assert problem.code == "DATA_MISMATCH"
    assert "train" in problem.message
    assert "test" not in problem.message.partition(";")[2]


# What is not at hand.


def test_a_parent_that_is_not_at_hand_is_said(chain, tmp_path):
    found = again(chain, chain.tuned, store=tmp_path / "empty")

    assert found.verdict == "cannot check"
    assert not found.ok
    assert found.tier == "recorded"
    assert "not at hand" in found.why


def test_a_parent_that_changed_is_not_used(chain, tmp_path):
    store = chain.copied_store(tmp_path)
    place = Store(store).find(chain.merged.folder.name)
    assert place is not None
    flip(place / "model.safetensors")

    found = again(chain, chain.tuned, store=store)

    assert found.verdict == "cannot check"
    assert [problem.code for problem in found.problems] == ["PARENT_MISMATCH"]


def test_a_parent_with_another_record_is_not_used(chain, tmp_path):
    store = chain.copied_store(tmp_path)
    place = Store(store).find(chain.merged.folder.name)
    assert place is not None
    restate(place, lambda s: part(s, "externalParameters").update(seed=5))

    found = again(chain, chain.tuned, store=store)

    assert found.verdict == "cannot check"
    assert [problem.code for problem in found.problems] == ["PARENT_STATEMENT_MISMATCH"]


def test_rows_from_python_must_be_given(chain):
    found = reproduce(chain.tuned.folder, store=chain.store)

    assert found.verdict == "cannot check"
    assert "from Python" in found.why
    assert "--data" in found.why


def test_a_step_that_only_measures_on_rows_asks_for_them_too(chain):
    found = reproduce(chain.merged.folder, store=chain.store)

    assert found.verdict == "cannot check"
    assert "--data" in found.why


def test_other_rows_say_nothing_about_a_step_that_learns_from_none(chain, capsys):
    found = again(chain, chain.merged, data=Splits.of(tiny_rows(20, seed=8), chain.rows.test))
    show_reproduction(found)

    assert found.verdict == "cannot check"
    assert [problem.code for problem in found.problems] == ["DATA_MISMATCH"]
    assert "not its rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "data",
    [
        {"source": "./rows.jsonl"},
        {"source": "/etc/passwd"},
        {"source": "imagefolder:photos"},
        {"source": "sample:senses", "train": "train[:"},
        {"source": "sample:senses", "more": 1},
        {"source": ["x"]},
        {},
    ],
)
def test_a_record_cannot_send_one_to_files_of_this_machine(
    chain, copy, data, monkeypatch, tmp_path
):
    (tmp_path / "rows.jsonl").write_text('{"text": "good", "label": "good"}\n' * 9)
    monkeypatch.chdir(tmp_path)
    restate(copy, lambda s: part(s, "externalParameters").update(data=data))

    found = reproduce(copy, store=chain.store)

    assert found.verdict == "cannot check"
    assert "rows" in found.why


def test_a_base_is_no_step(chain):
    with pytest.raises(IntegrityError, match="MISSING_LINEAGE"):
        reproduce(chain.base)
    with pytest.raises(SourceError):
        reproduce(chain.base / "nowhere")


def test_an_unknown_adapter_is_said(chain, copy):
    def forge(statement: Any) -> None:
        part(statement, "externalParameters")["adapter"] = "strange"

    restate(copy, forge)

    assert again(chain, copy).verdict == "cannot check"


def test_whatever_an_adapter_raises_is_an_answer(chain, monkeypatch):
    def broken(*_: Any) -> Adapted:
        raise KeyError("surprise")

    monkeypatch.setattr(FineTune, "adapt", broken)

    found = again(chain, chain.tuned)

    assert found.verdict == "cannot check"
    assert "KeyError" in found.why


def test_models_that_an_adapter_names_must_be_parents(chain, copy):
    """A stranger's record must not make this machine fetch or open something else."""
    recipe = Merge(models=(ModelRef("someone/else", digest="ab" * 32),)).describe()["merge"]

    def forge(statement: Any) -> None:
        part(statement, "externalParameters").update(adapter="merge", recipe=recipe)

    restate(copy, forge)

    found = again(chain, copy)

    assert found.verdict == "cannot check"
    assert "none of the parents" in found.why


# Another machine.


@pytest.fixture(scope="module")
def stopped(chain, tmp_path_factory):
    """A child that was stopped early, so that the end of its trail says nothing about its weights."""
    tune = replace(TUNE, fit=replace(SHORT, early_stopping=EarlyStopping()))
    store = tmp_path_factory.mktemp("stopped") / "store"
    return run(tune, chain.base, store, data=chain.rows).children[0].folder


@pytest.fixture
def loose(stopped, tmp_path):
    """The same in a folder that may be damaged."""
    return Path(shutil.copytree(stopped, tmp_path / "loose"))


def test_small_differences_are_excused_by_another_machine(chain, loose, elsewhere):
    value = Tensors(loose)[NAME].clone()
    value[0, 0] += 1e-6
    retouch(loose, {NAME: value})

    found = again(chain, loose)

    assert found.verdict == "within tolerance"
    assert found.ok
    assert found.tier == "recorded"
    assert any("cpu.model" in line for line in found.environment)


def test_large_differences_are_left_to_the_metric(chain, loose, elsewhere):
    retouch(loose, {NAME: Tensors(loose)[NAME] + 0.01})

    found = again(chain, loose)

    assert found.verdict == "metric-equal"
    assert found.tier == "recorded"
    assert found.metrics is not None
    assert found.metrics["accuracy"][0] == found.metrics["accuracy"][1]


def with_metrics(folder: Path, value: float, interval: list[float]) -> None:
    metrics = json.loads((folder / "lineage/metrics.json").read_bytes())
    metrics["after"]["accuracy"] = value
    metrics["intervals"]["after"]["accuracy"] = interval
    (folder / "lineage/metrics.json").write_bytes(canonical.dumps(metrics))


def test_a_metric_that_the_model_in_the_folder_does_not_reach_is_not_excused(
    chain, loose, elsewhere
):
    with_metrics(loose, 0.999, [0.0, 1.0])
    retouch(loose, {NAME: Tensors(loose)[NAME] + 0.01})

    found = again(chain, loose)

    assert found.verdict == "differs"
    assert "does not reach the recorded accuracy" in found.why


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_random_weights_are_no_model_that_is_as_good(chain, loose, elsewhere, scale):
    """Whatever interval the forger writes: both models are measured on the same rows."""
    torch.manual_seed(0)
    with_metrics(loose, 0.5, [0.0, 1.0])
    floats = {n: v for n, v in Tensors(loose).items() if v.is_floating_point()}
    retouch(loose, {name: scale * torch.randn_like(value) for name, value in floats.items()})

    found = again(chain, loose)

    assert found.verdict == "differs"
    assert "on the same rows" in found.why


def test_another_machine_does_not_excuse_that_the_trail_ends_in_other_weights(
    chain, copy, elsewhere
):
    retouch(copy, {NAME: Tensors(copy)[NAME] + 1e-6})

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert [problem.code for problem in found.problems] == ["BAD_TRAIL"]


@pytest.mark.parametrize("changes", [{"state": "d" * 64, "loss": 3.0}, {"rows": "d" * 64}])
def test_another_machine_does_not_excuse_a_trail_of_another_training(
    chain, loose, elsewhere, changes
):
    retouch(loose, {NAME: Tensors(loose)[NAME] + 0.01})
    with_trail(loose, **changes)

    found = again(chain, loose)

    assert found.verdict == "differs"
    assert [problem.code for problem in found.problems] == ["BAD_TRAIL"]


def with_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def with_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages }} and visit us")


def with_environment(folder: Path, change: Any) -> None:
    facts = json.loads((folder / ENVIRONMENT).read_bytes())
    change(facts)
    (folder / ENVIRONMENT).write_bytes(canonical.dumps(facts))
    restate(folder)


def another_cpu(facts: Any) -> None:
    facts["cpu"]["model"] = "another"


def another_version(facts: Any) -> None:
    facts["versions"]["transformers"] = "4.0.0"


FORGED = {
    "labels": lambda folder: with_config(folder, id2label={"0": "good", "1": "bad"}),
    "a constant": lambda folder: with_config(folder, layer_norm_eps=3e-2),
    "a template": with_template,
}


@pytest.mark.parametrize("name", ["merged", "tuned"])
@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_another_machine_writes_no_other_files(chain, tmp_path, name, forge):
    folder = Path(shutil.copytree(getattr(chain, name).folder, tmp_path / "forged"))
    forge(folder)
    with_environment(folder, another_cpu)

    found = again(chain, folder)

    assert found.verdict == "differs"
    assert found.tier == "broken"
    assert found.files


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_other_software_may_write_other_files_and_then_nothing_was_replayed(chain, copy, forge):
    forge(copy)
    with_environment(copy, another_version)

    found = again(chain, copy)

    assert found.verdict == "cannot tell"
    assert not found.ok
    assert found.tier == "recorded"


def test_other_software_writes_its_version_into_files(chain, copy):
    with_config(copy, transformers_version="4.0.0")
    with_environment(copy, another_version)

    found = again(chain, copy)

    assert found.verdict == "within tolerance"
    assert found.tier == "recorded"
    assert found.files == ("config.json",)


@pytest.mark.parametrize("change", [another_cpu, another_version])
def test_nothing_excuses_a_false_structure_over_true_weights(chain, copy, change):
    restate(copy, lambda s: part(s, "internalParameters")["structure"].update(trained=[NAME]))
    with_environment(copy, change)

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert "`structure`" in found.why


def without_trail(statement: Any) -> None:
    byproducts = statement["predicate"]["runDetails"]["byproducts"]
    byproducts[:] = [each for each in byproducts if each["name"] != TRAIL]


def test_a_training_without_a_trail_is_made_again_but_that_is_said(chain, copy):
    restate(copy, without_trail)
    (copy / TRAIL).unlink()

    found = again(chain, copy)

    assert found.verdict == "bit-equal"
    assert any("no trail" in line for line in found.unchecked)


def test_a_trail_of_a_training_that_never_was_is_found(chain, copy):
    trail = parse_trails((copy / TRAIL).read_bytes())[0]
    (copy / TRAIL).write_bytes(dump_trails([trail, trail]))
    restate(copy)

    found = again(chain, copy)

    assert found.verdict == "differs"
    assert [problem.code for problem in found.problems] == ["BAD_TRAIL"]


@pytest.mark.parametrize("number", [10**6, 2**40, -1, True, "many"])
def test_a_record_cannot_ask_for_any_number_of_threads(copy, number):
    restate(copy, lambda s: part(s, "internalParameters")["facts"].update(num_threads=number))
    with_environment(copy, lambda facts: facts["torch"].update(threads=number))

    assert Recorded.read(copy).num_threads is None


def test_files_count_where_weights_are_only_near(chain, loose, elsewhere):
    retouch(loose, {NAME: Tensors(loose)[NAME] + 1e-7})
    with_template(loose)
    restate(loose)

    assert again(chain, loose).verdict == "differs"


def test_what_the_record_says_of_the_machine_counts(chain, copy):
    facts = json.loads((copy / ENVIRONMENT).read_bytes())
    facts["versions"]["torch"] = "0.1"
    (copy / ENVIRONMENT).write_bytes(canonical.dumps(facts))
    restate(copy)

    found = again(chain, copy)

    assert found.verdict == "bit-equal"
    assert [line for line in found.environment if "versions.torch: recorded 0.1" in line]


# Windows.


def big_rows() -> list[dict[str, Any]]:
    return tiny_rows(1400, seed=4)


def swapped(rows: Sequence[Mapping[str, Any]], num: int) -> list[dict[str, Any]]:
    """Some rows, spread over all, in the place of others."""
    changed = [dict(row) for row in rows]
    places = list(range(9, 1400, 1400 // num))[:num]
    others = tiny_rows(num, seed=99)
    for place, row in zip(places, others, strict=True):
        changed[place] = row
    return changed


def flipped(rows: Sequence[Mapping[str, Any]], num: int) -> list[dict[str, Any]]:
    changed = [dict(row) for row in rows]
    for place in range(100, 1400, 1400 // num)[:num]:
        changed[place]["label"] = {"good": "bad", "bad": "good"}[changed[place]["label"]]
    return changed


PLAN = FitPlan(epochs=1, batch_size=32, learning_rate=1e-3)


@pytest.mark.parametrize(
    ("change", "num"), [(swapped, 14), (flipped, 7), (flipped, 0)], ids=["1 %", "7 labels", "none"]
)
def test_a_training_on_other_rows_shows_in_the_first_window(chain, tmp_path, change, num):
    """The forger writes the digest of the clean rows, and everything fits: only the training was on others."""
    rows, test = big_rows(), tiny_rows(20, seed=5)
    clean = Splits.of(rows, test)
    dirty = Splits.of(change(rows, num), test) if num else clean
    store = tmp_path / "store"
    child = run(FineTune(train=("head",), fit=PLAN), chain.base, store, data=dirty).children[0]
    folder = Path(shutil.copytree(child.folder, tmp_path / "copy"))

    def claim(statement: Any) -> None:
        entries = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        entry = next(each for each in entries if each["name"] == "data")
        entry["digest"] = {"rowsHash1": clean.digest}

    restate(folder, claim)

    found = reproduce(folder, window=Window(20), data=clean, store=store)

    assert found.window is not None
    assert found.window.num_rows == 1400
    assert found.window.stop == 20
    assert found.window.num_seen == 640
    assert found.window.notices(7) > 0.98
    if num:
        assert found.verdict == "differs"
        assert found.first_step is not None
    else:
        assert found.verdict == "as recorded"
        assert found.ok
        assert found.tier == "recorded"


def test_the_probability_is_that_of_drawing_rows(chain):
    from reuselib.evidence.reproduction import WindowCompared

    window = WindowCompared(
        which="", asked=5, start=0, stop=5, num_steps=20, num_compared=2, num_seen=25, num_rows=100
    )
    draws = torch.stack([torch.randperm(100)[:3] for _ in range(4000)])

    assert window.notices(1) == pytest.approx(0.25)
    assert window.notices(3) == pytest.approx(float((draws < 25).any(1).float().mean()), abs=0.03)
    assert window.notices(3) == pytest.approx(1 - 0.75**3, abs=0.01)
    assert window.notices(90) == 1.0
    assert window.share_of_steps == 0.25


@pytest.fixture(scope="module")
def kept(chain, tmp_path_factory):
    """A child whose training left three states, in a store of its own."""
    store = tmp_path_factory.mktemp("kept") / "store"
    settled = plan(
        chain.base,
        FineTune(fit=STATES),
        task=TextClassification(),
        data=Splits.of(tiny_rows(96), tiny_rows(16, seed=1)),
        store=store,
    )
    return settled, execute(settled, Runtime(keep_states=3)).children[0]


def window_of(kept: Any, window: Window, **options: Any) -> Reproduction:
    settled, child = kept
    defaults = {"data": settled.splits, "store": settled.store}
    return reproduce(child.folder, window=window, **{**defaults, **options})


def test_states_are_kept_beside_the_children(kept):
    settled, child = kept
    states = settled.store.path / "states" / child.folder.name
    trail = parse_trails((child.folder / TRAIL).read_bytes())[0]

    assert {path.name for path in states.iterdir()} == {"4", "9", "13"}
    assert {entry.step for entry in trail.kept} == {4, 9, 13}
    assert trail.num_steps == 18


@pytest.mark.parametrize(
    ("window", "start", "stop"),
    [
        (Window(3), 0, 4),
        (Window(18), 0, 18),
        (Window(500), 0, 18),
        (Window(3, "last"), 13, 18),
        (Window(6, "last"), 9, 18),
        (Window(17, "last"), 4, 18),
    ],
)
def test_each_window_begins_at_a_state_that_is_early_enough(kept, window, start, stop):
    found = window_of(kept, window)

    assert found.verdict == "as recorded", found.why
    assert found.window is not None
    assert found.window.start == start
    assert found.window.stop == stop or window.which == "first"
    assert found.window.num_compared >= 1
    assert found.window.share_of_steps == (found.window.stop - start) / 18


def test_the_random_window_is_decided_by_its_seed(kept):
    starts, windows = set(), {}
    for seed in (0, 1, 1, 2, 3):
        found = window_of(kept, Window(2, "random", seed))
        assert found.verdict == "as recorded"
        assert windows.setdefault(seed, found.window) == found.window
        assert found.window is not None
        starts.add(found.window.start)

    assert len(starts) > 1
    assert starts <= {4, 9, 13}


def test_without_states_only_the_first_window_can_be_checked(chain):
    for which in ("last", "random"):
        found = again(chain, chain.tuned, window=Window(1, which))
        assert found.verdict == "cannot check"
        assert "--keep-states" in found.why
    assert again(chain, chain.tuned, window=Window(1)).verdict == "as recorded"


def test_states_that_are_gone_are_said(kept, tmp_path):
    settled, _ = kept
    store = Store(tmp_path / "other")
    base = settled.base
    store.remember_root(base.manifest.digests.dir_hash, base.folder)

    found = window_of(kept, Window(1, "last"), store=store)

    assert found.verdict == "cannot check"
    assert "not in the store" in found.why


def test_a_state_that_was_changed_is_not_used(kept, tmp_path):
    settled, child = kept
    store = Path(shutil.copytree(settled.store.path, tmp_path / "store"))
    flip(store / "states" / child.folder.name / "13" / "tensors.safetensors")

    found = window_of(kept, Window(1, "last"), store=store)

    assert found.verdict == "cannot check"
    assert [problem.code for problem in found.problems] == ["DIGEST_MISMATCH"]


def test_a_training_that_left_the_path_later_shows_in_the_last_window(kept, tmp_path):
    """As recorded for the first steps; then the states are those of another training."""
    settled, child = kept
    folder = Path(shutil.copytree(child.folder, tmp_path / "copy"))
    trail = parse_trails((folder / TRAIL).read_bytes())[0]
    forged = replace(
        trail,
        entries=tuple(
            replace(each, state="b" * 64) if each.step > 13 else each for each in trail.entries
        ),
    )
    (folder / TRAIL).write_bytes(dump_trails([forged]))
    restate(folder)
    options = {"data": settled.splits, "store": settled.store}

    last = reproduce(folder, window=Window(3, "last"), **options)

    assert last.verdict == "differs"
    assert last.first_step is None or last.first_step > 13


def test_a_state_beside_the_path_is_found(kept, tmp_path):
    """Bound by the trail, but not the state whose digest is there."""
    settled, child = kept
    folder = Path(shutil.copytree(child.folder, tmp_path / "copy"))
    trail = parse_trails((folder / TRAIL).read_bytes())[0]
    forged = tuple(
        replace(each, state="c" * 64) if each.step == 13 else each for each in trail.entries
    )
    (folder / TRAIL).write_bytes(dump_trails([replace(trail, entries=forged)]))
    restate(folder)

    found = reproduce(folder, window=Window(3, "last"), data=settled.splits, store=settled.store)

    assert found.verdict == "differs"
    assert [problem.code for problem in found.problems] == ["BAD_STATE"]


def test_a_step_that_trains_nothing_has_no_window(chain):
    found = again(chain, chain.merged, window=Window(1))

    assert found.verdict == "cannot check"
    assert "no trail" in found.why


def with_trail(copy: Path, **changes: Any) -> None:
    trail = parse_trails((copy / TRAIL).read_bytes())[0]
    entries = tuple(replace(each, **changes) for each in trail.entries)
    (copy / TRAIL).write_bytes(dump_trails([replace(trail, entries=entries)]))
    restate(copy)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"state": "d" * 64}, "cannot tell"),
        ({"state": "d" * 64, "loss": 3.0}, "differs"),
        ({"rows": "d" * 64}, "differs"),
    ],
    ids=["near loss", "other loss", "other rows"],
)
def test_another_machine_excuses_states_but_neither_losses_nor_rows(
    chain, loose, elsewhere, changes, verdict
):
    with_trail(loose, **changes)

    found = again(chain, loose, window=Window(1))

    assert found.verdict == verdict
    assert found.ok is False


@pytest.mark.parametrize("bad", [(0, "first"), (-1, "last"), (3, "middle")])
def test_a_window_must_be_one(bad):
    with pytest.raises(TrainingError):
        Window(*bad)


# How it is shown.


@pytest.mark.parametrize("window", [None, Window(1), Window(1, "last")])
def test_the_result_is_plain_json_and_can_be_shown(chain, window, capsys):
    found = again(chain, chain.tuned, window=window)
    written = json.loads(canonical.dumps(found.to_json()))
    show_reproduction(found)
    shown = capsys.readouterr().out

    assert written["verdict"] == found.verdict
    assert written["ok"] is found.ok
    assert (written["window"] is None) == (found.window is None)
    assert found.name in shown
    assert all(line in shown for line in found.unchecked)
    if found.window is not None:
        assert "probability" in shown


def test_exit_codes(chain, tmp_path, capsys):
    lines = "".join(json.dumps(row) + "\n" for row in tiny_rows(40))
    (tmp_path / "rows.jsonl").write_text(lines)
    store = tmp_path / "store"
    data = Data(source=str(tmp_path / "rows.jsonl"))
    child = run(TUNE, chain.base, store, data=data).children[0]
    words = ["reproduce", str(child.folder), "--store", str(store)]
    rows = ["--data", str(tmp_path / "rows.jsonl")]

    assert main([*words, *rows]) == 0
    capsys.readouterr()
    assert main([*words, *rows, "--steps", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert main(words) == 3
    (tmp_path / "rows.jsonl").write_text(lines.replace("good", "fine", 1))
    assert main([*words, *rows]) == 5
    assert main([*words, *rows, "--steps", "0"]) == 3
    capsys.readouterr()
    assert main([*words, *rows, "--window", "last"]) == 3
    assert "--steps" in capsys.readouterr().err


def test_it_is_said_why_a_window_is_longer_than_asked_for(kept, capsys):
    show_reproduction(window_of(kept, Window(3)))
    shown = capsys.readouterr().out
    assert "4 steps instead of 3: it goes on to step 4, the next entry of the trail" in shown
    show_reproduction(window_of(kept, Window(4)))
    assert "instead of" not in capsys.readouterr().out
    show_reproduction(window_of(kept, Window(1, "last")))
    assert "5 steps instead of 1" in capsys.readouterr().out


@dataclass(frozen=True)
class Torn(Adapter):
    """Trains in two parts, as a plug-in may."""

    kind: ClassVar[str] = "torn"

    def adapt(self, module: Any, run: Any) -> Adapted:
        run.fit(module, SHORT)
        return Adapted(module, metrics=run.fit(module, replace(SHORT, epochs=2)))

    def prove(self, parents: Any, child: Any, structure: Any) -> Any:
        return ()


def test_a_step_with_two_trainings_has_two_trails(chain, tmp_path, monkeypatch):
    from reuselib.evidence import replanning

    child = run(Torn(), chain.base, tmp_path / "store", data=chain.rows).children[0]
    trails = parse_trails((child.folder / TRAIL).read_bytes())
    monkeypatch.setattr(replanning, "recorded_adapter", lambda _: Torn())

    assert [trail.num_steps for trail in trails] == [2, 4]
    assert again(chain, child, store=tmp_path / "store").verdict == "bit-equal"
    found = again(chain, child, store=tmp_path / "store", window=Window(2))
    assert found.verdict == "as recorded"
    assert any("1 other training" in line for line in found.unchecked)
