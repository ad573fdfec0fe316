from __future__ import annotations

import pickle

import pytest

from reuselib.errors import MissingExtra
from reuselib.scanning import opinion
from reuselib.scanning.opinion import second_opinion
from reuselib.scanning.scan import scan
from scanning.payloads import call


def test_it_agrees_on_what_is_harmful(tmp_path, capfd):
    data = call("os", "system", "true")
    (tmp_path / "a.bin").write_bytes(data)

    assert second_opinion(data) == ("os.system",)
    assert any("picklescan finds os.system" in h.message for h in scan(tmp_path).hazards)
    assert capfd.readouterr().err == ""


def test_it_agrees_on_what_is_not():
    assert second_opinion(pickle.dumps([1, 2])) == ()


def test_it_never_raises():
    assert isinstance(second_opinion(b"\x80\x04\xff\xff"), tuple)


def test_without_it_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(opinion, "at_hand", lambda: False)

    with pytest.raises(MissingExtra, match=r"reuselib\[scan\]"):
        second_opinion(b"")
