from __future__ import annotations

import io
import pickle
import pickletools
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reuselib.scanning.pickled import read_pickles
from scanning.payloads import call, pickles, short


def names(data: bytes) -> list[tuple[str, str]]:
    found = read_pickles(io.BytesIO(data))
    return list(found.names) if found else []


@pytest.mark.parametrize(
    "name", ["protocol-0", "protocol-2", "protocol-4", "stack-global", "inst", "obj", "build"]
)
def test_names_are_those_that_the_standard_library_sees(name):
    """`pickletools.dis` resolves nothing, so names on the stack are compared where it knows them."""
    data = pickles(Path("m"))[name]
    known = [
        tuple(argument.split(" ", 1))
        for opcode, argument, _ in pickletools.genops(data)
        if opcode.name in ("GLOBAL", "INST")
    ]

    assert [each for each in names(data) if each in known] == known
    assert names(data)


def test_names_on_the_stack_are_put_together():
    data = b"\x80\x04" + short("os") + short("system") + b"\x93)R."

    assert names(data) == [("os", "system")]


def test_what_is_computed_is_unknown_and_no_friend():
    data = b"\x80\x04" + b"N" + short("system") + b"\x93)R."

    found = read_pickles(io.BytesIO(data))

    assert found is not None
    assert found.names == (("?", "system"),)
    assert found.strangers == ("?.system",)


@pytest.mark.parametrize(
    "value", [{"a": [1, 2.5, None, "x", b"y", True]}, (1, 2, 3), {1, 2}, 10**50, "text"]
)
@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_name_at_most_what_weights_need(value, protocol):
    found = read_pickles(io.BytesIO(pickle.dumps(value, protocol=protocol)))

    assert found is not None
    assert found.complete
    # Python 2 had no bytes, so protocol 2 calls a codec, and a set is made by calling its class
    assert set(found.strangers) <= {"__builtin__.set", "builtins.set"}


def test_pickles_one_after_another_are_all_read():
    data = pickle.dumps(1) + pickle.dumps([2]) + call("os", "system", "true")

    found = read_pickles(io.BytesIO(data))

    assert found is not None
    assert (found.num_pickles, found.names) == (3, (("os", "system"),))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b".",
        b"# Title\nsome words\n",
        b"cat\ndog\n.",
        b"is\nit\nRed.",
        b'{"a": 1}',
        b"import os\nos.system('x')\n",
        b"[PAD]\n[UNK]\n",
        b"I am\n",
        b"certainly\nnot a pickle\nR.",
        b"\x80",
        b"\x80\x02",
        b"\x80\x04garbage",
    ],
)
def test_text_that_looks_like_opcodes_is_left_alone(text):
    found = read_pickles(io.BytesIO(text))

    # two words on lines of their own are a pickle that imports, as far as an unpickler can tell
    assert found is None or found.names == (("at", "dog"),)


def test_a_length_that_lies_takes_no_memory():
    import tracemalloc

    data = b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x" * 100
    tracemalloc.start()

    read_pickles(io.BytesIO(data))

    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_a_stream_without_end_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr("reuselib.scanning.pickled._MAX_OPCODES", 1000)

    found = read_pickles(io.BytesIO(b"\x80\x02" + b"N0" * 1000 + b"."))

    assert found is not None
    assert not found.complete


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data):
    read_pickles(io.BytesIO(data))
    read_pickles(io.BytesIO(b"\x80\x04" + data))


@pytest.mark.parametrize("name", ["nested", "pickle.loads"])
def test_a_pickle_in_the_bytes_of_a_pickle_is_read_too(name):
    assert ("posix", "system") in names(pickles(Path("m"))[name])
