from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reuselib.cli import main
from reuselib.errors import IntegrityError, SourceError
from reuselib.forensics.trace import trace, trace_store
from reuselib.lineage.chain import ANCESTORS
from reuselib.lineage.manifest import MANIFEST, Manifest
from reuselib.lineage.record import METRICS
from reuselib.testing.histories import Model, base, child, fill_store


def names(found):
    return [(line.depth, line.node.name, line.again) for line in found.lines()]


def ties(found):
    return {
        (found.by_id[e.child].name, found.by_id[e.parent].name): (e.role, e.tier)
        for e in found.edges
    }


@pytest.fixture
def diamond() -> Model:
    """A student of two models that were made from one base."""
    root = base()
    one, other = child("one", [("base", root)]), child("other", [("base", root)])
    return child(
        "student", [("base", one), ("teacher", other)], adapter="distill", relation="distill"
    )


def test_a_history_is_followed_to_its_base_and_what_is_shared_is_drawn_once(tmp_path, diamond):
    found = trace(diamond.write(tmp_path / "m"))

    assert names(found) == [
        (0, "student", False),
        (1, "one", False),
        (2, "base", False),
        (1, "other", False),
        (2, "base", False),
    ]
    assert ties(found) == {
        ("student", "one"): ("base", "recorded"),
        ("student", "other"): ("teacher", "recorded"),
        ("one", "base"): ("base", "recorded"),
        ("other", "base"): ("base", "recorded"),
    }
    assert len(found.nodes) == 4
    assert found.tier == "recorded"
    assert found.ok


def test_a_model_with_a_past_of_its_own_is_drawn_out_once(tmp_path):
    shared = child("shared", [("base", base())])
    one = child("one", [("base", shared)])
    top = child("top", [("base", one), ("teacher", shared)])

    assert names(trace(top.write(tmp_path / "m")))[-1] == (1, "shared", True)


def test_the_figures_are_those_that_the_manifest_binds(tmp_path):
    folder = child("one", [("base", base())]).write(tmp_path / "m")
    honest = trace(folder).nodes[0].change
    (folder / METRICS).write_text('{"metric":"accuracy","before":{},"after":{"accuracy":0.99}}')

    assert honest is not None
    assert (honest.metric, honest.before, honest.after) == ("accuracy", 0.5, 0.75)
    assert trace(folder).nodes[0].change is None


def test_an_ancestors_figures_come_from_the_store_that_is_at_hand(tmp_path, monkeypatch):
    parent = child("parent", [("base", base())], accuracy=(0.25, 0.5))
    folder = child("m", [("base", parent)]).write(tmp_path / "m")
    assert trace(folder).by_id[parent.sha256].change is None

    parent.file(tmp_path / "store")
    monkeypatch.setenv("REUSELIB_STORE", str(tmp_path / "store"))

    change = trace(folder).by_id[parent.sha256].change
    assert change is not None
    assert change.after == 0.5


def test_only_what_differs_from_the_defaults_is_told(tmp_path):
    recipe = {"r": 4, "lora_dropout": 0.0, "fit": {"epochs": 7, "batch_size": 32}}
    model = child("m", [("base", base())], adapter="lora", relation="adapter", recipe=recipe)

    assert trace(model.write(tmp_path / "m")).nodes[0].settings == {"r": 4, "fit.epochs": 7}


def test_a_missing_parent_is_a_missing_edge(tmp_path, diamond):
    folder = diamond.write(tmp_path / "m")
    lost = next(node for node in trace(folder).nodes if node.name == "other")
    (folder / ANCESTORS / f"{lost.id}.json").unlink()

    found = trace(folder)

    assert ties(found)["student", "file:other"] == ("teacher", "missing")
    assert found.tier == "missing"
    assert found.ok


def test_history_that_was_rewritten_is_a_broken_edge_and_the_rest_is_shown(tmp_path, diamond):
    folder = diamond.write(tmp_path / "m")
    one = next(node for node in trace(folder).nodes if node.name == "one")
    path = folder / ANCESTORS / f"{one.id}.json"
    path.write_bytes(path.read_bytes().replace(b'"seed":0', b'"seed":1'))

    found = trace(folder)

    edge = next(edge for edge in found.edges if edge.tier == "broken")
    assert edge.why.startswith("PARENT_STATEMENT_MISMATCH")
    assert ties(found)["other", "base"] == ("base", "recorded")
    assert not found.ok


def test_an_ancestor_that_is_about_another_model_is_a_broken_edge(tmp_path):
    honest, other = base(), base("other")
    model = child("m", [("base", honest)])
    statement = json.loads(model.manifest.payload())
    for item in statement["predicate"]["buildDefinition"]["resolvedDependencies"]:
        if item["annotations"]["role"] == "parent-statement":
            item["digest"]["sha256"] = other.sha256
    from reuselib.lineage import canonical

    forged = Manifest.parse(canonical.dumps(statement))
    folder = Model(forged, {other.sha256: other.manifest.payload()}).write(tmp_path / "m")

    assert trace(folder).edges[0].tier == "broken"
    assert "PARENT_MISMATCH" in trace(folder).edges[0].why


def test_a_folder_without_a_manifest_says_what_card_and_configuration_declare(tmp_path):
    (tmp_path / "README.md").write_text("---\nbase_model: [org/a, org/b]\n---\n")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/c"}')

    found = trace(tmp_path)

    assert [found.by_id[e.parent].name for e in found.edges] == ["org/a", "org/b", "org/c"]
    assert {e.tier for e in found.edges} == {"declared"}
    assert "README.md" in found.edges[0].why


def test_what_holds_no_model_is_refused_and_a_store_is_pointed_out(tmp_path):
    with pytest.raises(SourceError, match="check the path"):
        trace(tmp_path)
    (tmp_path / "models").mkdir()
    with pytest.raises(SourceError, match="--children"):
        trace(tmp_path)
    with pytest.raises(SourceError, match="no store"):
        trace_store(tmp_path / "models")


def test_a_malformed_manifest_of_the_model_itself_is_an_error(tmp_path):
    (tmp_path / "lineage").mkdir()
    (tmp_path / MANIFEST).write_text("{}")

    with pytest.raises(IntegrityError, match="missing"):
        trace(tmp_path)


@pytest.mark.parametrize("depth", [80, 5000])
def test_a_history_deeper_than_is_read_is_a_limit(tmp_path, depth):
    """Each parent is named by its digest, so such a history must be made link by link."""
    model = base()
    every: dict[str, bytes] = {}
    for number in range(depth if depth < 100 else 1):
        every[model.sha256] = model.manifest.payload()
        model = Model(child(f"m{number}", [("base", model)]).manifest)
    for number in range(depth if depth > 100 else 0):
        every[f"{number:064x}"] = b"{}"
    folder = Model(model.manifest, every).write(tmp_path / "m")

    with pytest.raises(IntegrityError, match="LIMIT"):
        trace(folder)


# A store.


def test_a_store_is_a_forest_from_its_bases(tmp_path):
    root = base()
    one, other = child("one", [("base", root)]), child("other", [("base", root)])
    student = child("student", [("base", one), ("teacher", other)])
    for model in (student, other, one):
        model.file(tmp_path)

    found = trace_store(tmp_path)

    assert names(found) == [
        (0, "base", False),
        (1, "one", False),
        (2, "student", False),
        (1, "other", False),
        (2, "student", True),
    ]


def test_broken_children_of_a_store_are_shown_and_hide_nothing(tmp_path):
    good = child("good", [("base", base())])
    good.file(tmp_path)
    (tmp_path / "models" / ("a" * 64) / "lineage").mkdir(parents=True)
    (tmp_path / "models" / ("a" * 64) / MANIFEST).write_text("{")
    (tmp_path / "models" / ("b" * 64)).mkdir()
    child("misfiled", [("base", base())]).write(tmp_path / "models" / ("c" * 64))

    found = trace_store(tmp_path)

    assert {n.name: n.problem.split(":")[0] for n in found.nodes if n.problem} == {
        "a" * 64: "BAD_JSON",
        "b" * 64: "there is no readable lineage/manifest.json",
        "c" * 64: "BAD_MANIFEST",
    }
    assert (1, "good", False) in names(found)
    assert not found.ok


def test_ancestors_that_left_the_store_are_read_from_their_children(tmp_path):
    middle = child("middle", [("base", base())])
    child("last", [("base", middle)]).file(tmp_path)

    assert [name for _, name, _ in names(trace_store(tmp_path))] == ["base", "middle", "last"]


def test_pipes_in_place_of_files_are_not_waited_for(tmp_path):
    one = child("one", [("base", base())])
    for name in (MANIFEST, f"{ANCESTORS}/{base().sha256}.json", METRICS):
        store = tmp_path / name.replace("/", "-")
        folder = one.file(store)
        (folder / name).unlink()
        os.mkfifo(folder / name)

        assert trace_store(store).nodes
        if name == MANIFEST:
            with pytest.raises(SourceError, match="not a file"):
                trace(folder)
        else:
            assert trace(folder).nodes


def test_the_same_store_gives_the_same_trace(tmp_path):
    fill_store(tmp_path, 40)

    assert trace_store(tmp_path).to_json() == trace_store(tmp_path).to_json()
    assert len(trace_store(tmp_path).nodes) == 40 + len(
        {hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.rglob("ancestors/*.json")}
        - {hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.rglob("manifest.json")}
    )


def test_the_verb_needs_no_torch_and_prints_every_form(tmp_path, capsys):
    folder = child("m", [("base", base())]).write(tmp_path / "m")
    code = (
        "import sys; from reuselib.cli import main\n"
        f"assert main(['trace', {str(folder)!r}]) == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "accuracy 0.500 -> 0.750  [recorded]" in done.stdout
    assert "not checked: " in done.stdout
    for form, start in (("json", "{"), ("dot", "digraph"), ("mermaid", "flowchart"), ("prov", "{")):
        assert main(["trace", str(folder), "--format", form]) == 0
        assert capsys.readouterr().out.startswith(start)


def test_a_policy_for_a_whole_store_is_refused(tmp_path, capsys):
    (tmp_path / "models").mkdir()
    (tmp_path / "policy.yaml").write_text("require: [recorded]\n")

    assert main(["trace", str(tmp_path), "--children", "--policy", str(tmp_path / "policy.yaml")]) == 2  # fmt: skip
    assert "one model folder" in capsys.readouterr().err


def test_a_policy_has_the_files_verified_too(tmp_path):
    from reuselib.lineage.policy import Policy

    folder = child("m", [("base", base())]).write(tmp_path / "m")

    found = trace(folder, policy=Policy())

    assert found.edges[0].tier == "broken", "the record names files that are not there"
    assert not found.ok


@pytest.fixture
def whole(tmp_path) -> Path:
    """A child with payload and record."""
    from lineage.folders import draft_of, write_child

    parent = base()
    payload = {parent.sha256: parent.manifest.payload()}
    write_child(tmp_path / "whole", draft_of(parent.manifest), payload)
    return tmp_path / "whole"


def test_a_signature_by_a_trusted_key_signs_every_edge(tmp_path, whole):
    pytest.importorskip("model_signing")
    from reuselib.lineage.policy import Policy
    from reuselib.signing.keys import make_keys
    from reuselib.signing.sign import sign

    keys = [make_keys(tmp_path / name) for name in ("ours", "other")]
    sign(whole, tmp_path / "ours")
    trusted, stranger = (Policy(trusted_keys=(str(key),), require=("signed",)) for key in keys)

    assert trace(whole).tier == "recorded"
    assert trace(whole, policy=trusted).tier == "signed"
    assert trace(whole, policy=trusted).signer
    assert trace(whole, policy=stranger).tier == "recorded"
    assert not trace(whole, policy=stranger).signer


def test_a_model_that_is_not_signed_is_not_broken(whole):
    from reuselib.lineage.policy import Policy

    found = trace(whole, policy=Policy(max_age_days=1))

    assert found.tier == "recorded"
    assert any("no signature" in line for line in found.unchecked)


def test_paths_of_this_machine_do_not_appear(tmp_path):
    folder = child("m", [("base", base())]).write(tmp_path / "m")

    assert str(tmp_path) not in json.dumps(trace(folder).to_json())
    assert isinstance(folder, Path)
