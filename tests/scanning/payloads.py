"""Pickles that would write a marker file if anything unpickled them, in every dress that scanners have missed.

Each is checked for its teeth in a process of its own, see `test_payloads.py`.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

MAGIC = 0x1950A86A20F9469CFC6C
"""Of torch's old format."""


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def unicode(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def raw_name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: str) -> bytes:
    """Protocol 2: a name, its arguments, a call."""
    packed = b"".join(unicode(each) for each in arguments)
    return b"\x80\x02" + raw_name(module, name) + b"(" + packed + b"tR."


def reduced(marker: Path, protocol: int) -> bytes:
    class Touch:
        def __reduce__(self):
            return eval, (f"open({str(marker)!r}, 'w').close()",)

    return pickle.dumps({"weights": [1, 2, Touch()]}, protocol=protocol)


def pickles(marker: Path) -> dict[str, bytes]:
    """By what is particular about each."""
    shell = f"touch {marker}"
    python = f"open({str(marker)!r}, 'w').close()"
    imported = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    system = call("posix", "system", shell)
    found = {f"protocol-{number}": reduced(marker, number) for number in range(6)}
    found |= {
        "os.system": call("os", "system", shell),
        "posix.system": system,
        "builtins.eval": call("builtins", "eval", python),
        "builtins.exec": call("builtins", "exec", python),
        "__builtin__.eval": call("__builtin__", "eval", python),
        "subprocess.getoutput": call("subprocess", "getoutput", shell),
        "timeit.timeit": b"\x80\x02" + raw_name("timeit", "timeit") + b"(" + unicode(imported)
        + unicode("pass") + raw_name("time", "time") + b"K\x01tR.",
        "cProfile.run": call("cProfile", "run", python),
        "pdb.run": call("profile", "run", python),
        "code.InteractiveInterpreter": b"\x80\x04"
        + raw_name("code", "InteractiveInterpreter.runcode")
        + b"("
        + raw_name("code", "InteractiveInterpreter")
        + b")R"
        + unicode(imported)
        + b"tR.",
        "inst": b"(" + f"S'{shell}'\n".encode() + b"iposix\nsystem\n.",
        "obj": b"(" + raw_name("subprocess", "Popen") + f"S'{shell}'\n".encode() + b"I-1\nNN"
        b"NNN" + b"I00\nI01\no.",
        "text": f"cposix\nsystem\n(S'{shell}'\ntR.".encode(),
        "no-protocol": raw_name("posix", "system") + b"(" + unicode(shell) + b"tR.",
        "stack-global": b"\x80\x04" + short("posix") + short("system") + b"\x93" + short(shell) + b"\x85R.",
        "stack-global-memo": b"\x80\x04" + short("posix") + b"\x94" + b"0" + short("system") + b"\x94" + b"0"
        + b"h\x00h\x01\x93" + short(shell) + b"\x85R.",
        "stack-global-dup": b"\x80\x04" + short("posix") + b"2" + b"0" + short("system") + b"\x93" + short(shell)
        + b"\x85R.",
        "stack-global-put": b"\x80\x04" + short("system") + b"p7\n0" + short("posix") + b"g7\n\x93" + short(shell)
        + b"\x85R.",
        "stack-global-long-put": b"\x80\x04" + short("system") + b"r\x07\x01\x00\x000" + short("posix")
        + b"j\x07\x01\x00\x00\x93" + short(shell) + b"\x85R.",
        "stack-global-binunicode8": b"\x80\x04\x8d" + struct.pack("<Q", 5) + b"posix" + short("system") + b"\x93"
        + short(shell) + b"\x85R.",
        "newobj": b"\x80\x02" + raw_name("builtins", "bytes") + b"(" + raw_name("builtins", "map") + b"("
        + raw_name("posix", "system") + b"](" + unicode(shell) + b"et\x81t\x81.",
        "newobj-ex": b"\x80\x04" + raw_name("builtins", "bytes") + b"(" + raw_name("builtins", "map") + b"("
        + raw_name("posix", "system") + b"](" + unicode(shell) + b"et}\x92t}\x92.",
        "dotted": b"\x80\x04" + short("os") + short("path.os.system") + b"\x93" + short(shell) + b"\x85R.",
        "getattr": b"\x80\x02" + raw_name("builtins", "getattr") + b"(" + raw_name("builtins", "__import__") + b"("
        + unicode("os") + b"tR" + unicode("system") + b"tR(" + unicode(shell) + b"tR.",
        "operator": b"\x80\x02" + raw_name("operator", "methodcaller") + b"(" + unicode("system") + unicode(shell)
        + b"tR(" + raw_name("builtins", "__import__") + b"(" + unicode("os") + b"tRtR.",
        "functools.partial": b"\x80\x02" + raw_name("functools", "partial") + b"(" + raw_name("os", "system")
        + unicode(shell) + b"tR)R.",
        "pkgutil": b"\x80\x02" + raw_name("pkgutil", "resolve_name") + b"(" + unicode("os:system") + b"tR("
        + unicode(shell) + b"tR.",
        "map": b"\x80\x02" + raw_name("builtins", "list") + b"(" + raw_name("builtins", "map") + b"("
        + raw_name("os", "system") + b"](" + unicode(shell) + b"e" + b"tRtR.",
        "broken-after": system[:-1] + b"0\xff\xff",
        "cut-short": system[:-1],
        "behind-a-frame": b"\x80\x04\x95" + struct.pack("<Q", len(system) - 2) + system[2:],
        "behind-much-data": b"\x80\x04\x8e" + struct.pack("<Q", 3 << 20) + bytes(3 << 20) + b"0" + system[2:],
        "behind-a-lie": system[2:-1] + b"\x8e" + struct.pack("<Q", 2**62),
        "second-of-two": pickle.dumps({"a": 1}) + system,
        "nested": call("_pickle", "loads", "").replace(unicode(""), b"C" + bytes([len(system)]) + system),
        "pickle.loads": call("pickle", "loads", "").replace(unicode(""), b"B" + struct.pack("<I", len(system)) + system),
        "reduce-in-memo": b"\x80\x02" + raw_name("posix", "system") + b"q\x000(h\x00" + unicode(shell) + b"t0h\x00("
        + unicode(shell) + b"tR.",
        "build": b"\x80\x02" + raw_name("types", "SimpleNamespace") + b")R}" + unicode("x")
        + raw_name("posix", "system") + b"(" + unicode(shell) + b"tRsb.",
        "torch-legacy": pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + system,
    }  # fmt: skip
    return found


def zipped(data: bytes, name: str = "archive/data.pkl", method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def tarred(data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def old_tarred(data: bytes) -> bytes:
    """As before POSIX: without a mark, only the checksum tells."""
    head = bytearray(tarred(data))
    head[257:265] = bytes(8)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head)


def npy(data: bytes) -> bytes:
    text = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def flag_encrypted(data: bytes) -> bytes:
    """A zip whose directory says that a member is encrypted, which loaders that do not look open all the same."""
    archive = bytearray(data)
    archive[archive.rfind(b"PK\x01\x02") + 8] |= 1
    return bytes(archive)


def wrong_crc(data: bytes) -> bytes:
    archive = bytearray(data)
    archive[archive.rfind(b"PK\x01\x02") + 16] ^= 255
    return bytes(archive)


WRAPPERS: dict[str, Callable[[bytes], bytes]] = {
    "zip": zipped,
    "zip-deflated": lambda data: zipped(data, method=zipfile.ZIP_DEFLATED),
    "zip-bzip2": lambda data: zipped(data, method=zipfile.ZIP_BZIP2),
    "zip-odd-name": lambda data: zipped(data, "archive/readme.txt"),
    "zip-prefixed": lambda data: b"PK\x03\x04" + bytes(60) + zipped(data),
    "zip-in-zip": lambda data: zipped(zipped(data), "inner.bin"),
    "zip-flagged": lambda data: flag_encrypted(zipped(data)),
    "zip-wrong-crc": lambda data: wrong_crc(zipped(data)),
    "tar": tarred,
    "tar-old": old_tarred,
    "gzip": gzip.compress,
    "gzip-twice": lambda data: gzip.compress(b"") + gzip.compress(data),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zlib": zlib.compress,
    "tar-gz": lambda data: gzip.compress(tarred(data)),
    "npy": npy,
    "npz": lambda data: zipped(npy(data), "x.npy"),
}
"""Containers by name."""

SUFFIXES = (
    ".bin",
    ".pt",
    ".pkl",
    ".txt",
    ".json",
    ".safetensors",
    ".md",
    ".npy",
    ".joblib",
    "",
    ".model",
    ".jinja",
)
