"""Where rows come from, which of them serve which purpose, and what their content is."""

from __future__ import annotations

from reuselib.data.data import Data
from reuselib.data.splits import Splits

__all__ = ["Data", "Splits"]
