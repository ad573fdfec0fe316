"""For tests of adapters, ours or a stranger's: tiny models, tiny rows, and the laws that every adapter keeps."""

from reuselib.testing.checking import check_adapter
from reuselib.testing.laws import LAWS

__all__ = ["LAWS", "check_adapter"]
