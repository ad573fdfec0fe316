"""What a plain YAML scalar means: the core schema of YAML 1.2, which holds fewer surprises than 1.1.

`1e-4` is a number; `no`, `on` and `2024-01-01` are strings. Used for reading and, in reverse, for deciding what to
quote when writing.
"""

from __future__ import annotations

import math
import re

from reuselib.adapter import Json

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

_BOOL_OF_YAML_1_1 = {"yes": True, "on": True, "y": True, "no": False, "off": False, "n": False}
LARGEST = 2**53
"""Beyond this, JSON readers round integers, and a record of the run would no longer say what was run."""


def plain(text: str) -> Json:
    """The value of an unquoted scalar.

    Raises:
        ValueError: a number that a record cannot hold exactly.
    """
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        if len(text) > 17 or abs(int(text)) > LARGEST:
            raise ValueError(f"the integer {text[:40]} is beyond 2^53, where records lose digits")
        return int(text)
    # Leading zeros say that it is a name (`007`) rather than a number; `0.5` and `0e1` are numbers.
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9]", text):
        if not math.isfinite(number := float(text)):
            raise ValueError(f"the number {text} is too large")
        return number
    return text


def needs_quotes(text: str) -> bool:
    """Whether this string would be read back as something else if it were written plainly."""
    try:
        return not isinstance(plain(text), str)
    except ValueError:
        return True


def lookalike(text: str) -> str | None:
    """How to write what was probably meant by a string in the place of a number or a truth value."""
    if text.lower() in _BOOL_OF_YAML_1_1:
        return str(_BOOL_OF_YAML_1_1[text.lower()]).lower()
    candidate = text.strip().replace("_", "").replace(",", ".")
    try:
        value = plain(candidate)
    except ValueError:
        return None
    return candidate if isinstance(value, bool | int | float) else None
