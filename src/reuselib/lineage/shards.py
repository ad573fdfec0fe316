"""The index of weights that are spread over several files: what it promises must be there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from reuselib.errors import IntegrityError, SourceError
from reuselib.lineage import canonical

if TYPE_CHECKING:
    from reuselib.lineage.headers import TensorInfo

_SUFFIX = ".safetensors.index.json"


def check_indexes(folder: Path, tensors: Mapping[str, TensorInfo]) -> None:
    """Compare every index at the top of a folder with the headers of its files.

    Raises:
        IntegrityError: `UNSAFE_PATH` if an index leads out of the folder, `TRUNCATED` if it names a tensor that its
            file does not hold, `BAD_JSON` if it is no index.
    """
    for path in sorted(folder.glob(f"*{_SUFFIX}")):
        try:
            with path.open("rb") as file:
                data = file.read(canonical.MAX_BYTES + 1)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        index = canonical.loads(data, path=path.name)
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(places, dict) or not all(
            isinstance(file, str) for file in places.values()
        ):
            raise IntegrityError(
                "BAD_JSON",
                f"{path.name}: 'weight_map' does not map tensors to files",
                path=path.name,
            )
        for name, file in places.items():
            _check_place(path.name, name, str(file), tensors)


def _check_place(index: str, name: str, file: str, tensors: Mapping[str, TensorInfo]) -> None:
    if "/" in file or "\\" in file or not file.endswith(".safetensors"):
        raise IntegrityError(
            "UNSAFE_PATH", f"{index}: {name!r} is said to be in {file!r}", path=index, tensor=name
        )
    if name not in tensors or tensors[name].file != file:
        raise IntegrityError(
            "TRUNCATED",
            f"{index}: {name!r} is said to be in {file}, which does not hold it",
            path=index,
            tensor=name,
            fix="get the missing file; an interrupted download leaves such a folder",
        )
