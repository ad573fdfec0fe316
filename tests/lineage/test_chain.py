from __future__ import annotations

from dataclasses import replace

import pytest

from lineage.folders import draft_of, write_child
from reuselib.errors import IntegrityError
from reuselib.lineage.chain import history, read_ancestors, walk
from reuselib.lineage.digest import Digests
from reuselib.lineage.manifest import Manifest


def child_of(parent: Manifest, name: str = "child") -> Manifest:
    draft = draft_of(parent, name)
    return Manifest(name, Digests("ab" * 32, "cd" * 32), draft.definition, draft.details)


def payloads(*manifests: Manifest) -> dict[str, bytes]:
    return {manifest.sha256: manifest.payload() for manifest in manifests}


def test_leaf_is_traced_to_its_root_from_its_folder_alone(tmp_path, child, pinned):
    middle = Manifest.read(child)
    leaf = write_child(tmp_path / "leaf", draft_of(middle, "leaf"), history(child))

    chain = walk(leaf, read_ancestors(tmp_path / "leaf"))

    assert list(chain.manifests) == [middle.sha256, pinned.sha256]
    assert chain.manifests[pinned.sha256] == pinned
    assert chain.missing == ()
    assert set(history(tmp_path / "leaf")) == {leaf.sha256, middle.sha256, pinned.sha256}


def test_missing_manifest_is_reported_not_raised(pinned):
    chain = walk(child_of(pinned), {})

    assert [parent.name for parent in chain.missing] == ["base"]


def test_rewritten_history_is_refused(pinned):
    child = child_of(pinned)
    rewritten = replace(pinned, name="another").payload()

    with pytest.raises(IntegrityError) as caught:
        walk(child, {pinned.sha256: rewritten})

    assert caught.value.code == "PARENT_STATEMENT_MISMATCH"


def test_manifest_of_another_model_is_refused(pinned):
    other = replace(pinned, digests=Digests("12" * 32, "34" * 32))
    model, statement = replace(
        child_of(pinned).parents[0], manifest_sha256=other.sha256
    ).descriptors()
    child = child_of(pinned)
    child = replace(child, definition=replace(child.definition, dependencies=(model, statement)))

    with pytest.raises(IntegrityError) as caught:
        walk(child, payloads(other))

    assert caught.value.code == "PARENT_MISMATCH"


def test_ancestor_reached_twice_counts_once(pinned):
    left, right = child_of(pinned, "left"), child_of(pinned, "right")
    parents = (
        replace(child_of(left).parents[0], name="l"),
        replace(child_of(right).parents[0], name="r"),
    )
    dependencies = tuple(item for parent in parents for item in parent.descriptors())
    child = replace(left, definition=replace(left.definition, dependencies=dependencies))

    chain = walk(child, payloads(left, right, pinned))

    assert list(chain.manifests) == [left.sha256, right.sha256, pinned.sha256]


def test_walk_is_bounded(pinned):
    manifests = [pinned]
    for _ in range(65):
        manifests.append(child_of(manifests[-1]))

    assert len(walk(manifests[64], payloads(*manifests)).manifests) == 64
    with pytest.raises(IntegrityError, match="LIMIT"):
        walk(manifests[65], payloads(*manifests))
