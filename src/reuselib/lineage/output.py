"""Handing a model to the user: a copy in a folder of their choice, never over something that is not ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import uuid4

from reuselib.errors import StoreError
from reuselib.lineage.disk import sync, sync_tree, writing
from reuselib.lineage.manifest import MANIFEST


def check_output(output: Path, *, overwrite: bool = False) -> None:
    """Find out before a long computation whether its result may go to a folder.

    A folder that does not exist or is empty may be used. One that holds a model with a manifest may
    be replaced if `overwrite` says so; anything else never, because `--output ~` must not cost a
    home.

    Raises:
        StoreError: it may not.
    """
    if not output.exists() and not output.is_symlink():
        return
    if output.is_symlink() or not output.is_dir():
        raise StoreError(
            f"{output} exists and is not a folder",
            expected="a new folder, or one that a model was written to before",
            fix="choose another output",
        )
    with writing(output, otherwise="choose another output"):
        is_empty = next(output.iterdir(), None) is None
    if is_empty:
        return
    if not (output / MANIFEST).is_file():
        raise StoreError(
            f"{output} holds files, but no model with a {MANIFEST}",
            expected="a new folder, or one that a model was written to before",
            fix="choose another output; such a folder is never replaced",
        )
    if not overwrite:
        raise StoreError(
            f"{output} already holds a model",
            expected="a new folder",
            fix="choose another output, or say --overwrite to replace it",
        )


def deliver(source: Path, output: Path, *, overwrite: bool = False) -> Path:
    """Copy a folder to `output`; the old one is only taken away once the new one is complete.

    Raises:
        StoreError: `check_output` refuses, or it cannot be written.
    """
    output = output.absolute()
    check_output(output, overwrite=overwrite)
    mark = uuid4().hex
    new, old = (output.with_name(f".{output.name}.{mark}.{suffix}") for suffix in ("new", "old"))
    with writing(output, otherwise="choose another output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copytree(source, new)
            sync_tree(new)
            _replace(new, output, old)
            sync(output.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return output


def _replace(new: Path, output: Path, old: Path) -> None:
    if output.exists():
        output.rename(old)
    try:
        new.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
