from __future__ import annotations

import pytest

from chains import SHORT, TUNE, run
from reuselib.adapters.distill import Distill
from reuselib.adapters.prune import Prune
from reuselib.derivation import link
from reuselib.derivation.derive import Runtime
from reuselib.derivation.execution import execute
from reuselib.derivation.link import Link
from reuselib.derivation.plan import as_parent
from reuselib.errors import SourceError
from reuselib.training.lessons import Losses

HEAL = Distill(losses=Losses(logits=0.5, task=0.5), fit=SHORT)


def test_the_origin_of_a_step_is_found_and_read_once(chain, tmp_path, monkeypatch):
    """By the session that teaches, the measuring and the record."""
    pruned = chain.plan((TUNE, Prune(ffn=0.5)), store=tmp_path / "store")
    execute(pruned, Runtime())
    found = []
    real = link.find_origin
    monkeypatch.setattr(link, "find_origin", lambda *a: found.append(a) or real(*a))

    made = execute(chain.plan((TUNE, Prune(ffn=0.5), HEAL), store=tmp_path / "store"), Runtime())

    assert [child.reused for child in made.children] == [True, True, False]
    assert len(found) == 1
    assert [parent.role for parent in made.children[-1].manifest.parents] == ["base", "teacher"]


def test_a_step_stands_for_its_origin_once_something_was_compressed(chain, tmp_path):
    store = chain.copied_store(tmp_path)
    settled = chain.plan((TUNE, Prune(ffn=0.5), HEAL), store=store)
    parent = as_parent(chain.tuned.folder, chain.tuned.manifest)

    assert not Link(settled, TUNE, parent).compressed
    assert Link(settled, Prune(ffn=0.5), parent).compressed
    made = run((TUNE, Prune(ffn=0.5)), chain.base, store, data=chain.rows)
    pruned = as_parent(made.children[-1].folder, made.children[-1].manifest)
    assert Link(settled, TUNE, pruned).compressed
    assert Link(settled, TUNE, pruned).origin.manifest.digests == made.children[0].manifest.digests


def test_an_origin_that_is_not_at_hand_is_asked_for_again(chain, tmp_path, monkeypatch):
    """What was not found is no answer to keep."""
    settled = chain.plan((TUNE,))
    one = Link(settled, TUNE, as_parent(chain.tuned.folder, chain.tuned.manifest))

    def gone(*_):
        raise SourceError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(link, "find_origin", gone)
        with pytest.raises(SourceError):
            _ = one.origin

    assert one.origin.manifest == chain.tuned.manifest
