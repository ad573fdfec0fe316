"""Names and digests for functions and classes: what can be recorded of code that is given as a value."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType
from typing import Any


def qualified_name(value: Any) -> str:
    """`module.name` of a function or class, or of the class of any other callable."""
    if isinstance(value, partial):
        return qualified_name(value.func)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def code_digest(value: Any) -> str:
    """64 hex digits that change when the code, its defaults or the plain values it closes over change.

    Code that it calls in turn is not looked at.
    """
    digest = hashlib.sha256()
    for piece in _pieces(value):
        digest.update(f"{len(piece)}:{piece}\n".encode())
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[str]:
    yield qualified_name(value)
    if isinstance(value, partial):
        yield from _pieces(value.func)
        for item in (*value.args, *(value.keywords[key] for key in sorted(value.keywords))):
            yield from _plain(item)
        yield " ".join(sorted(value.keywords))
    elif isinstance(value, FunctionType):
        yield _source(value)
        for item in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            yield from _plain(item)
        for cell in value.__closure__ or ():
            yield from _plain(cell.cell_contents)
    elif isinstance(value, type):
        yield _source(value)
    elif not inspect.isroutine(value):
        # A callable object, such as a loss module: its class and its plain settings.
        yield from _pieces(type(value))
        for name, item in sorted(vars(value).items()):
            if not name.startswith("_"):
                yield name
                yield from _plain(item)


def _plain(item: Any) -> Iterator[str]:
    if item is None or isinstance(item, (bool, int, float, str)):
        yield repr(item)
    elif isinstance(item, (list, tuple)):
        for inner in item:
            yield from _plain(inner)
    elif isinstance(item, (FunctionType, partial, type)):
        yield from _pieces(item)
    else:
        yield type(item).__qualname__


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        # Typed into an interpreter: there is no file to read.
        code = getattr(value, "__code__", None)
        return "" if code is None else "\n".join(_instructions(code))


def _instructions(code: CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:
            yield repr(constant)
