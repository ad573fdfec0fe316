"""What a pickle would import and call, read from its opcodes alone: nothing is ever unpickled.

The stream is walked as an unpickler would, but with text in place of objects. So names that are put together on the
stack (`STACK_GLOBAL`, the memo) are found, and so is what runs before the point at which a broken stream fails.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, TypeAlias

_MAX_OPCODES = 1_000_000
_MAX_PICKLES = 64
"""Of one after another in a file, as torch once wrote them."""
_MAX_ARGUMENT = 1 << 20
_MAX_LINE = 1 << 16
_MAX_NESTING = 3
_ENOUGH = 32
"""Opcodes without a name after the mark of a protocol, from which on a stream that breaks counts as a pickle."""
_CODES = {ord(each.code): each for each in pickletools.opcodes}
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_NAME = re.compile(r"[^\W\d][\w-]*(\.[^\W\d][\w-]*)*")

Name: TypeAlias = "tuple[str, str]"

_WEIGHTS = {
    "collections": {"OrderedDict"},
    "torch": {"Size", "device", "float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8",
              "bool", "FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage", "LongStorage", "IntStorage",
              "CharStorage", "ByteStorage", "BoolStorage"},
    "torch._utils": {"_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"},
    "torch.storage": {"UntypedStorage", "TypedStorage"},
    "numpy": {"ndarray", "dtype"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "_codecs": {"encode"},
}  # fmt: skip
"""All that weights alone need. A list of what is known to be harmful would always lack something."""


@dataclass(frozen=True)
class Pickled:
    """What was found in a stream."""

    names: tuple[Name, ...]
    """Module and name of everything that is imported, in the order of the stream; `?` where it is computed."""
    num_pickles: int
    calls: bool
    """Whether something is called."""
    complete: bool
    """Whether the stream was read to the end of its last pickle."""

    @property
    def strangers(self) -> tuple[str, ...]:
        """What weights alone would not need."""
        names = (f"{m}.{n}" for m, n in self.names if n not in _WEIGHTS.get(m, ()))
        return tuple(dict.fromkeys(names))


def read_pickles(file: BinaryIO, *, nesting: int = 0) -> Pickled | None:
    """Look into a stream that an unpickler would begin to read here; None if it is no pickle.

    A stream counts as one if it begins with the mark of a protocol and goes on as pickles do, or if it imports or calls
    something before it ends or breaks; other bytes that happen to be opcodes are harmless.
    """
    walks: list[_Walk] = []
    start = file.tell()
    marked = file.read(1) == b"\x80"
    file.seek(start)
    budget = _MAX_OPCODES
    while len(walks) < _MAX_PICKLES and budget > 0:
        walk = _Walk(nesting)
        budget -= walk.run(file, budget)
        if not (walk.stopped or walk.names or walk.num_opcodes >= _ENOUGH):
            break  # what follows is no further pickle
        walks.append(walk)
        if not walk.stopped:
            break
    names = tuple(name for walk in walks for name in walk.names)
    if not names and not (marked and walks):
        return None
    return Pickled(
        names, len(walks), any(walk.calls for walk in walks), all(walk.stopped for walk in walks)
    )


class _Broken(Exception):
    """The stream cannot go on; an unpickler would fail here too."""


_MARK = object()
_OPAQUE = object()
_PUSH_TEXT = frozenset({"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
                        "STRING", "BINSTRING", "SHORT_BINSTRING"})  # fmt: skip
_NESTED = frozenset(
    {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "STRING"}
)
_TO_MARK = {"TUPLE": 1, "LIST": 1, "DICT": 1, "FROZENSET": 1, "POP_MARK": 0,
            "APPENDS": 0, "SETITEMS": 0, "ADDITEMS": 0, "OBJ": 1}  # fmt: skip
"""Opcodes that take everything down to the mark, and how much they put in its place."""
_TAKES = {"POP": (1, 0), "TUPLE1": (1, 1), "TUPLE2": (2, 1), "TUPLE3": (3, 1), "APPEND": (1, 0),
          "SETITEM": (2, 0), "REDUCE": (2, 1), "BUILD": (1, 0), "NEWOBJ": (2, 1),
          "NEWOBJ_EX": (3, 1), "BINPERSID": (1, 1), "READONLY_BUFFER": (1, 1)}  # fmt: skip
"""Opcodes that take a number of values, and how much they put in their place."""
_CALLS = frozenset({"REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"})
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GETS = frozenset({"GET", "BINGET", "LONG_BINGET"})


@dataclass
class _Walk:
    """One pickle."""

    nesting: int
    names: list[Name] = field(default_factory=list)
    calls: bool = False
    stopped: bool = False
    num_opcodes: int = 0
    stack: list[object] = field(default_factory=list)
    memo: dict[int, object] = field(default_factory=dict)

    def run(self, file: BinaryIO, budget: int) -> int:
        """Walk on to the end; the number of opcodes it took."""
        try:
            for opcode, argument in _opcodes(file):
                self._step(opcode, argument)
                self.num_opcodes += 1
                if self.stopped or self.num_opcodes >= budget:
                    break
        except _Broken:
            pass
        return max(1, self.num_opcodes)

    def _step(self, opcode: str, argument: bytes) -> None:
        if opcode == "STOP":
            self.stopped = bool(self.stack)
            if not self.stopped:
                raise _Broken
        elif opcode in _PUTS or opcode in _GETS or opcode == "MEMOIZE":
            self._remember(opcode, argument)
        elif opcode in ("GLOBAL", "INST"):
            module, _, name = argument.partition(b"\n")
            if opcode == "INST":
                self._take_to_mark(0)
            self._import(module.decode("utf-8", "replace"), name.decode("utf-8", "replace"))
            self.stack.append(_OPAQUE)
        elif opcode == "STACK_GLOBAL":
            name, module = self._pop(), self._pop()
            self._import(*(each if isinstance(each, str) else "?" for each in (module, name)))
            self.stack.append(_OPAQUE)
        elif opcode in ("EXT1", "EXT2", "EXT4"):
            self.names.append(("copyreg", f"extension {int.from_bytes(argument, 'little')}"))
            self.stack.append(_OPAQUE)
        elif opcode in _TO_MARK:
            self._take_to_mark(_TO_MARK[opcode])
        elif opcode in _TAKES:
            self._take(*_TAKES[opcode])
        elif opcode == "DUP":
            value = self._pop()
            self.stack += [value, value]
        elif opcode not in ("PROTO", "FRAME"):
            self.stack.append(self._value(opcode, argument))
        self.calls = self.calls or opcode in _CALLS

    def _value(self, opcode: str, argument: bytes) -> object:
        """What a constant leaves on the stack."""
        if opcode == "MARK":
            return _MARK
        if opcode in _NESTED and self.nesting < _MAX_NESTING:
            raw = argument.strip(b"'\"") if opcode == "STRING" else argument
            inner = read_pickles(io.BytesIO(raw), nesting=self.nesting + 1)
            self.names += inner.names if inner else ()
        if opcode not in _PUSH_TEXT:
            return _OPAQUE
        text = argument.decode("utf-8", "replace")
        return text.strip("'\"") if opcode == "STRING" else text

    def _import(self, module: str, name: str) -> None:
        # an unpickler fails on what is no name, so text that happens to look like opcodes is left alone
        if not all(each == "?" or _NAME.fullmatch(each) for each in (module, name)):
            raise _Broken
        self.names.append((module, name))

    def _remember(self, opcode: str, argument: bytes) -> None:
        if opcode == "MEMOIZE":
            place = len(self.memo)
        elif opcode in ("PUT", "GET"):
            if not argument.isdigit() or len(argument) > 12:
                raise _Broken
            place = int(argument)
        else:
            place = int.from_bytes(argument, "little")
        if opcode in _GETS:
            if place not in self.memo:
                raise _Broken
            self.stack.append(self.memo[place])
            return
        value = self._pop()
        self.stack.append(value)
        self.memo[place] = value

    def _pop(self) -> object:
        if not self.stack:
            raise _Broken
        return self.stack.pop()

    def _take(self, count: int, left: int) -> None:
        for _ in range(count):
            self._pop()
        self.stack += [_OPAQUE] * left

    def _take_to_mark(self, left: int) -> None:
        while self._pop() is not _MARK:
            pass
        self.stack += [_OPAQUE] * left


def _opcodes(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Opcodes with the bytes of their arguments; of a long one, its beginning. Skips, so that no length is believed."""
    while code := file.read(1):
        opcode = _CODES.get(code[0])
        if opcode is None:
            raise _Broken
        yield opcode.name, _argument(file, opcode)
    raise _Broken


def _argument(file: BinaryIO, opcode: pickletools.OpcodeInfo) -> bytes:
    if opcode.arg is None:
        return b""
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        lines = 2 if opcode.arg.name == "stringnl_noescape_pair" else 1
        return b"\n".join(_line(file) for _ in range(lines))
    if opcode.arg.n >= 0:
        return _exactly(file, opcode.arg.n)
    prefix = _exactly(file, _LENGTHS[opcode.arg.n])
    length = int.from_bytes(prefix, "little")
    start = file.tell()
    data = file.read(min(length, _MAX_ARGUMENT))
    if len(data) < length:
        end = file.seek(0, io.SEEK_END)
        if end - start < length:
            raise _Broken
        file.seek(start + length)
    return data


def _exactly(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) < length:
        raise _Broken
    return data


def _line(file: BinaryIO) -> bytes:
    data = file.readline(_MAX_LINE)
    if not data.endswith(b"\n"):
        raise _Broken
    return data[:-1].rstrip(b"\r")
