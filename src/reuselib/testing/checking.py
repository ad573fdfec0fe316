"""`check_adapter`: all laws over one adapter."""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from reuselib import catalog
from reuselib.adapter import Adapter
from reuselib.data import Data
from reuselib.errors import LawBroken, ReuseError
from reuselib.task import Task
from reuselib.testing.bench import Bench, default_task, needed_before
from reuselib.testing.laws import LAWS
from reuselib.testing.tiny import tiny_bert, tiny_rows


def check_adapter(
    adapter: Adapter,
    *,
    before: Sequence[Adapter] | None = None,
    base: Path | None = None,
    task: Task | None = None,
    data: Data | None = None,
    laws: Collection[str] = tuple(LAWS),
) -> None:
    """Check that an adapter keeps the laws, on a tiny model and tiny rows.

    An adapter that is in no catalog is put into one while it is checked.

    Args:
        adapter: with settings that make its work short, such as one epoch.
        before: steps without which it cannot be applied; default: the shortest chain of ours that will do.
        base: folder of the model to start from; default: a BERT of two layers with a classifier.
        task: what that model is for; default: text classification.
        data: rows; default: 64 short texts, good or bad.
        laws: names of the laws to check; default: all of `LAWS`.

    Raises:
        LawBroken: the first law that is broken, by name, and how.
    """
    with tempfile.TemporaryDirectory() as name, installed(type(adapter)):
        folder = Path(name)
        bench = Bench(
            adapter=adapter,
            before=tuple(needed_before(adapter) if before is None else before),
            base=base or tiny_bert(folder / "base", head=True),
            task=task or default_task(),
            data=data or write_rows(folder / "rows"),
            folder=folder,
        )
        for law in laws:
            _check(law, bench)


def _check(law: str, bench: Bench) -> None:
    """Turn whatever goes wrong under a law into a breach of it."""
    try:
        LAWS[law](bench)
    except LawBroken:
        raise
    except Exception as error:
        # a stranger's adapter may raise anything; whatever it is, the law was not kept
        told = str(error) if isinstance(error, ReuseError) else f"{type(error).__name__}: {error}"
        raise LawBroken(law, told) from error


def write_rows(folder: Path, num_rows: int = 64) -> Data:
    """Tiny rows as files, so that a recipe can name them."""
    folder.mkdir()
    for split, seed in (("train", 0), ("test", 1)):
        lines = [json.dumps(row) for row in tiny_rows(num_rows, seed=seed)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Data(source=str(folder))


@contextmanager
def installed(*classes: type[Adapter]) -> Iterator[None]:
    """Put adapter classes into the catalog within, as if a package with their entry points were installed."""
    unknown = [each for each in classes if each.kind not in catalog.entries(catalog.ADAPTER_GROUP)]
    if not unknown:
        yield
        return
    with tempfile.TemporaryDirectory() as name:
        info = Path(name) / "reuselib_testing_guest-0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: reuselib-testing-guest\nVersion: 0\n"
        )
        points = [f"{each.kind} = {each.__module__}:{each.__qualname__}" for each in unknown]
        (info / "entry_points.txt").write_text("\n".join([f"[{catalog.ADAPTER_GROUP}]", *points]))
        sys.path.append(name)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(name)
            importlib.invalidate_caches()
