"""Data sets of the hub: pinned to a commit first, then copied, then read from that copy.

The copy is what makes the pin hold. Asked for a commit that it cannot get, `datasets.load_dataset`
falls back in silence to whatever version of that data set it has cached; given the folder of one
commit, it has nothing to fall back to. No code of the data set is ever run: `datasets` no longer
knows loading scripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reuselib.data.rows import named_classes
from reuselib.errors import DataError, SourceError

if TYPE_CHECKING:
    from reuselib.task import Rows

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Found:
    """A data set at one commit."""

    commit: str
    folder: Path
    """The local copy."""
    tables: Mapping[str, Callable[[], Rows]]


def find(source: str, *, subset: str | None = None, revision: str | None = None) -> Found:
    """Resolve a hub id to a commit, and open what that commit holds.

    With `HF_HUB_OFFLINE=1`, both come from the local cache of the hub.

    Raises:
        SourceError: there is no such data set, revision or subset, or the hub cannot be reached.
        DataError: its files cannot be read as rows.
    """
    folder = _snapshot(source, revision)
    subset = _known_subset(source, folder, subset)
    tables = {k: _named(v) for k, v in _load(source, folder, subset).items()}
    return Found(folder.name, folder, tables)


def _snapshot(source: str, revision: str | None) -> Path:
    """The local copy of a data set: a folder whose name is the commit.

    The hub's own client turns a branch or tag into a commit before it fetches anything. Without a
    connection it takes the commit that the branch had when it was last seen here; the record then
    names that one.
    """
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(source, repo_type="dataset", revision=revision))
    except errors.GatedRepoError as error:
        what, fix = "is open to some users only", "ask for access on its page, then `hf auth login`"
        raise _not_found(source, revision, what, fix) from error
    except errors.RevisionNotFoundError as error:
        fix = "check `revision`: a branch, a tag or a full commit"
        raise _not_found(source, revision, "has no such revision", fix) from error
    except errors.RepositoryNotFoundError as error:
        fix = "check the name; if it is private, `hf auth login`"
        raise _not_found(source, revision, "is not on the hub", fix) from error
    except errors.LocalEntryNotFoundError as error:
        fix = "unset HF_HUB_OFFLINE and run once with a connection"
        what = "is not in the local cache, and the hub is not asked or not reached"
        raise _not_found(source, revision, what, fix) from error
    except (OSError, ValueError) as error:
        fix = "check the connection, and the space on the disk"
        what = f"cannot be fetched: {_first_line(error)}"
        raise _not_found(source, revision, what, fix) from error
    if not _COMMIT.fullmatch(folder.name):
        what = f"was not resolved to a commit, but to '{folder.name}'"
        raise _not_found(source, revision, what, "give a full commit as `revision`")
    return folder


def _not_found(source: str, revision: str | None, what: str, fix: str) -> SourceError:
    at = f" at '{revision}'" if revision else ""
    if Path(source).exists():
        fix = f"for what lies in the current folder, write './{source}'"
    return SourceError(
        f"the data set '{source}'{at} {what}", expected="a data set of the hub", fix=fix
    )


def _known_subset(source: str, folder: Path, subset: str | None) -> str | None:
    from datasets import get_dataset_config_names

    try:
        names = get_dataset_config_names(str(folder))
    except (OSError, ValueError) as error:
        raise _no_rows(source, error) from error
    if subset in names or (subset is None and (len(names) == 1 or "default" in names)):
        return subset
    near = get_close_matches(subset or "", names, n=1)
    raise SourceError(
        f"the data set '{source}' has no subset '{subset}'"
        if subset
        else f"the data set '{source}' has several subsets",
        expected=f"`subset` is one of {', '.join(names)}",
        fix=f"did you mean '{near[0]}'?" if near else "name one of these",
    )


def _load(source: str, folder: Path, subset: str | None) -> Mapping[str, Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        tables: Any = load_dataset(str(folder), name=subset)
        return tables
    except (DatasetsError, OSError, ValueError) as error:
        raise _no_rows(source, error) from error


def _no_rows(source: str, error: Exception) -> DataError:
    return DataError(
        f"the files of the data set '{source}' cannot be read as rows: {_first_line(error)}",
        expected="csv, json, parquet or image files; loading scripts are not run",
        fix="choose another revision, or download and convert the files",
    )


def _named(dataset: Any) -> Callable[[], Rows]:
    return lambda: named_classes(dataset)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
