from __future__ import annotations

import pytest

from reuselib import catalog
from reuselib.errors import LawBroken
from reuselib.testing import LAWS, check_adapter
from reuselib.testing.bench import SETTINGS
from reuselib.testing.tiny import tiny_bert

from guests import BitFit, Blind, Chancy, Forgetful, Lonely, Mute, Pickler, Slanderous, Wrong  # isort: skip


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A base whose head is new to every step."""
    return tiny_bert(tmp_path_factory.mktemp("bare"))


def test_every_adapter_of_the_catalog_is_tried():
    assert SETTINGS.keys() == catalog.ADAPTERS.keys()


@pytest.mark.parametrize("kind", SETTINGS)
def test_our_adapters_keep_the_laws(kind):
    check_adapter(SETTINGS[kind])


@pytest.mark.parametrize("kind", SETTINGS)
def test_our_adapters_keep_the_laws_over_a_base_without_a_head(kind, bare):
    # by then the number of processes has been tried
    laws = [law for law in LAWS if law not in ("world_size", "silence")]
    # a teacher must have a head already
    before = (SETTINGS["finetune"],) if kind == "distill" else None
    check_adapter(SETTINGS[kind], before=before, base=bare, laws=laws)


def test_a_strangers_adapter_keeps_the_laws():
    check_adapter(BitFit())


@pytest.mark.parametrize(
    ("guest", "law", "told"),
    [
        (Chancy(), "same", "other weights"),
        (Forgetful(), "rebuild", "says nothing about how to rebuild it"),
        (Wrong(), "rebuild", "other outputs after it was saved and loaded"),
        (Blind(), "proof", "missing passes"),
        (Slanderous(), "proof", "an honest child fails"),
        (Mute(), "silence", "refused without reason"),
        (Pickler(), "inert", "notes.pkl"),
        (Lonely(), "world_size", "between one process and 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "kind", None),
)
def test_a_broken_adapter_fails_at_the_law_it_breaks(guest, law, told):
    # two processes take seconds to start, so only the adapter that needs them gets them
    laws = [each for each in LAWS if each != "world_size" or law == "world_size"]

    with pytest.raises(LawBroken, match=told) as caught:
        check_adapter(guest, laws=laws)
    assert caught.value.law == law
