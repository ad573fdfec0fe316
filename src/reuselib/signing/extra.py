"""What signing needs besides the core: one extra, named in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from reuselib.errors import MissingExtra


@contextmanager
def needing_extra() -> Iterator[None]:
    """Turn a failed import inside the block into the sentence that names the extra.

    Raises:
        MissingExtra: in place of any `ImportError`.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"signatures need the package {error.name!r}, which is not installed: "
            "pip install 'reuselib[sign]'"
        ) from error
