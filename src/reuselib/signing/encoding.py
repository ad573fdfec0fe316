"""How signatures are written down, read strictly: base64 in its plain form, and one code for whatever is malformed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager

from reuselib.errors import IntegrityError
from reuselib.lineage.reading import Fields


@contextmanager
def malformed_signature(path: str = "") -> Iterator[None]:
    """Call `BAD_SIGNATURE` what the reader of fields, which is the manifest's, calls `BAD_MANIFEST`."""
    try:
        yield
    except IntegrityError as error:
        if error.code != "BAD_MANIFEST":
            raise
        what = error.what.removeprefix("BAD_MANIFEST: ")
        raise IntegrityError("BAD_SIGNATURE", what, path=path) from error


def decoded(fields: Fields, name: str) -> bytes:
    """Base64 in its only form: what decoders skip or ignore could mean another payload to another reader."""
    text = fields.get(name, str)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise fields.refuse(f"{name!r} is not base64: {error}") from error
    if base64.b64encode(data).decode() != text:
        raise fields.refuse(f"{name!r} is not base64 in its plain form")
    return data
