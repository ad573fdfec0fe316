"""Models: found, pinned, opened, and seen tensor by tensor."""

from reuselib.model.model import Model

__all__ = ["Model"]
