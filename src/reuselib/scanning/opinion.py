"""A second opinion on pickles, from picklescan. Advice only: lists of what is harmful always lack something."""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager


def at_hand() -> bool:
    """Whether the extra `scan` is installed."""
    return importlib.util.find_spec("picklescan") is not None


def second_opinion(data: bytes) -> tuple[str, ...]:
    """What picklescan calls dangerous in a pickle, as `module.name`. It reads opcodes too and runs nothing.

    Raises:
        MissingExtra: picklescan is not installed.
    """
    from reuselib.errors import MissingExtra

    if not at_hand():
        raise MissingExtra(
            "a second opinion on pickles needs picklescan", fix="pip install 'reuselib[scan]'"
        )
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    with _silent():
        try:
            result = scan_pickle_bytes(io.BytesIO(data), "pickle")
        except Exception as error:  # noqa: BLE001 - a foreign parser on bytes made to break it
            return (f"it gave up: {type(error).__name__}",)
    found = (f"{g.module}.{g.name}" for g in result.globals if g.safety is SafetyLevel.Dangerous)
    return tuple(sorted(set(found)))


@contextmanager
def _silent() -> Iterator[None]:
    """It logs what it finds, which the report says already."""
    logger = logging.getLogger("picklescan")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
