"""What policies demand of a record, each on a child that otherwise holds."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lineage.folders import draft_of, write_child
from reuselib.lineage.acceptance import conflicts, stale
from reuselib.lineage.chain import Chain, history, read_ancestors, walk
from reuselib.lineage.definition import Definition
from reuselib.lineage.manifest import Manifest
from reuselib.lineage.policy import Policy
from reuselib.lineage.verify import verify


def codes(folder, **demands) -> list[tuple[str, str]]:
    report = verify(folder, policy=Policy(**demands))
    return [(problem.code, problem.path) for problem in report.problems]


def made(manifest: Manifest, ago: timedelta | None) -> Manifest:
    time = None if ago is None else datetime.now(UTC) - ago
    return replace(manifest, details=replace(manifest.details, finished=time))


@pytest.mark.parametrize(
    ("ago", "is_stale"),
    [
        (timedelta(days=2), False),
        (timedelta(days=8), True),
        (timedelta(hours=-1), False),  # Clocks differ.
        (timedelta(days=-3), True),
        (None, True),
    ],
)
def test_age(child, ago, is_stale):
    manifest = made(Manifest.read(child), ago)

    found = list(stale(manifest, Chain({}), Policy(max_age_days=7)))

    assert [error.code for error in found] == ["STALE"] * is_stale


def test_model_and_ancestor_may_be_superseded(child, pinned):
    own = Manifest.read(child).sha256

    assert codes(child) == []
    assert codes(child, superseded=("1" * 64,)) == []
    assert codes(child, superseded=(own,)) == [("STALE", "lineage/manifest.json")]
    assert codes(child, superseded=(pinned.sha256,)) == [
        ("STALE", f"lineage/ancestors/{pinned.sha256}.json")
    ]


def test_missing_history_is_refused_if_any_tier_is_demanded(child, pinned):
    (child / f"lineage/ancestors/{pinned.sha256}.json").unlink()

    assert verify(child).tier == "missing"
    assert codes(child) == [("MISSING_PARENT", "lineage/ancestors")]
    assert codes(child, require=()) == []


def test_files_that_nobody_recorded(child):
    (child / "notes.pdf").write_text("x")
    (child / "lineage/notes.pdf").write_text("x")

    refused = [("UNSIGNED_FILE", "lineage/notes.pdf"), ("UNSIGNED_FILE", "notes.pdf")]
    assert codes(child) == refused
    report = verify(child, policy=Policy(unrecorded="warn"))
    assert report.ok
    assert [(each.code, each.path) for each in report.warnings] == refused


def test_loadable_file_is_refused_whatever_the_policy(child):
    (child / "extra.json").write_text("{}")

    assert codes(child, unrecorded="warn") == [("UNSIGNED_LOADABLE", "extra.json")]


def test_what_verify_cannot_tell_is_said(child):
    policy = Policy(
        require=("recorded", "proven", "replayed"),
        licences=("MIT",),
        min_completeness=0.5,
        claims="hold",
    )

    report = verify(child, policy=policy)

    assert report.ok
    for word in ("proven", "replayed", "licences", "completeness", "claims"):
        assert any(line.startswith(f"{word}:") and "audit" in line for line in report.unchecked)


def test_two_stories_about_one_model(tmp_path, child, base, pinned):
    """A merge of the same bytes twice, once said to be made with another seed."""
    first = Manifest.read(child)
    definition = first.definition
    assert definition.internal
    other = replace(
        first,
        definition=replace(
            definition,
            seed=8,
            internal=replace(definition.internal, derivation_id="d" * 64),
        ),
    )
    leaf = draft_of(first, "leaf")
    again = draft_of(other).definition.dependencies[:2]
    extra = [replace(each, name=each.name.replace("base", "twin")) for each in again]
    extra = [
        replace(extra[0], role="merge-source"),
        replace(extra[1], annotations={"of": "twin"}),
    ]
    both = Definition(
        **{
            **vars(leaf.definition),
            "dependencies": (*leaf.definition.dependencies, *extra),
        }
    )
    ancestors = {**history(child), other.sha256: other.payload()}
    write_child(tmp_path / "leaf", replace(leaf, definition=both), ancestors)

    [problem] = verify(tmp_path / "leaf").problems

    assert problem.code == "CONFLICT"
    assert first.sha256 in problem.message
    assert other.sha256 in problem.message


def test_step_that_changes_nothing_is_no_conflict(tmp_path, child):
    """A grandchild with the files of its parent: both have one digest, and neither lies."""
    draft = draft_of(Manifest.read(child), "leaf")
    assert draft.definition.internal
    internal = replace(draft.definition.internal, derivation_id="d" * 64)
    draft = replace(draft, definition=replace(draft.definition, internal=internal))
    leaf = write_child(tmp_path / "leaf", draft, history(child))

    assert leaf.digests == Manifest.read(child).digests
    chain = walk(leaf, read_ancestors(tmp_path / "leaf"))
    assert not list(conflicts(leaf, chain))
