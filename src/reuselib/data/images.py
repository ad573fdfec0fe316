"""A folder of images: one folder a class, perhaps below one folder a split.

Images are decoded when they are used, so that a large folder needs no memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from reuselib.data.rows import Encoded, LazyRows
from reuselib.errors import DataError, SourceError

if TYPE_CHECKING:
    from PIL.Image import Image

    from reuselib.task import Rows

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
"""Files with other ends are not images and are passed over."""


class ImageRows(LazyRows):
    """Rows with `image` (a PIL image) and `label` (the name of the folder it lies in)."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = tuple(files)

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> ImageRows: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | ImageRows:
        if isinstance(index, slice):
            return ImageRows(self._files[index])
        file = self._files[index]
        return {"image": _decode(file), "label": file.parent.name}

    def encoded(self) -> Iterator[Mapping[str, Any]]:
        """Every row with the bytes of the file in place of the image."""
        for file in self._files:
            yield {"image": Encoded(_read(file)), "label": file.parent.name}

    def select(self, indices: Sequence[int]) -> ImageRows:
        """The images at `indices`."""
        return ImageRows([self._files[index] for index in indices])


def folder_tables(folder: Path) -> Mapping[str, Callable[[], Rows]]:
    """The images by split: `folder/train/cat/1.png`, or all of them as `train`: `folder/cat/1.png`.

    Raises:
        SourceError: there is no such folder, or it is not laid out like this.
    """
    found = {depth: _images(folder, depth) for depth in range(4)}
    used = [depth for depth, files in found.items() if files]
    if used not in ([1], [2]):
        exists = folder.is_dir()
        what = "no classes can be made out in" if exists else "there is no folder"
        where = f": images lie {' and '.join(map(str, used))} folders deep" if used else ""
        raise SourceError(
            f"{what} '{folder}'{where}",
            expected=f"images as {folder.name}/cat/1.png, or as {folder.name}/train/cat/1.png",
            fix="put the images of each class into a folder with its name, all equally deep",
        )
    if used == [1]:
        return {"train": lambda: ImageRows(found[1])}
    splits = sorted({file.parent.parent.name for file in found[2]})
    return {name: _split(found[2], name) for name in splits}


def _split(files: Sequence[Path], name: str) -> Callable[[], Rows]:
    return lambda: ImageRows([file for file in files if file.parent.parent.name == name])


def _images(folder: Path, depth: int) -> list[Path]:
    """Image files exactly `depth` folders down, in an order that no file system decides."""
    files = folder.glob("*/" * depth + "*")
    visible = (f for f in files if not any(p.startswith(".") for p in f.relative_to(folder).parts))
    images = (file for file in visible if file.suffix.lower() in SUFFIXES and file.is_file())
    return sorted(images, key=lambda file: file.relative_to(folder).as_posix())


def _read(file: Path) -> bytes:
    """The bytes of a file that at least begins like an image, so that most faults show at once."""
    from PIL import Image

    try:
        data = file.read_bytes()
        Image.open(io.BytesIO(data)).close()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken(file, error) from None
    return data


def _decode(file: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken(file, error) from None


def _broken(file: Path, error: Exception) -> DataError:
    from PIL import UnidentifiedImageError

    # Pillow's own words name a buffer in memory.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "no known kind of image" if unknown else str(error)
    return DataError(
        f"cannot read the image '{file.parent.name}/{file.name}': {reason}",
        expected="an image that can be decoded",
        fix="replace the file, or remove it",
    )
