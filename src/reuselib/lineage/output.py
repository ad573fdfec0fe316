"""Handing a model to the user: a copy in a folder of their choice, never over something that is not ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from reuselib.errors import StoreError
from reuselib.lineage import disk
from reuselib.lineage.disk import make_folder, sync, sync_tree, writing
from reuselib.lineage.manifest import MANIFEST
from reuselib.lineage.scratch import scratch, sweep

NEW, OLD = "new", "old"
"""In a folder beside the output while it is written."""


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
    """Copy a folder to `output`, where there is the old one or the new one at any time, whole.

    Where the system cannot let two folders change places there is neither for an instant; who is killed in it finds the
    old one again with the next call of this function or of `recover`.

    Raises:
        StoreError: `check_output` refuses, or it cannot be written.
    """
    output = output.absolute()
    recover(output)
    check_output(output, overwrite=overwrite)
    with writing(output, otherwise="choose another output"):
        make_folder(output.parent)
        with scratch(output.parent, _prefix(output)) as folder:
            new = folder / NEW
            shutil.copytree(source, new)
            sync_tree(new)
            _replace(new, output, folder / OLD)
            sync(output.parent)  # before the old one goes: else neither might be on the disk
    return output


def recover(output: Path) -> None:
    """Clear away what a killed process left beside `output`, and put back the old folder if it had just been moved."""
    output = output.absolute()

    def put_back(folder: Path) -> None:
        if not output.exists() and (folder / OLD / MANIFEST).is_file():
            (folder / OLD).rename(output)
        # Also what the killed process had done, before the old one goes: else neither might be on the disk.
        sync(output.parent)

    sweep(output.parent, _prefix(output), put_back)


def _prefix(output: Path) -> str:
    return f".{output.name}."


def _replace(new: Path, output: Path, old: Path) -> None:
    """Put `new` in the place of `output`, which is moved to `new` or to `old`."""
    if output.exists() and disk.exchange(new, output):
        return
    if output.exists():
        output.rename(old)
    try:
        new.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
