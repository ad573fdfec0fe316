"""Image processors, and images that become pixels when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from reuselib.errors import DataError, SourceError
from reuselib.tasks import pretrained

if TYPE_CHECKING:
    from PIL.Image import Image

    from reuselib.task import Processor, Rows

_DEFAULT_SIZE = 224
_MODES = {1: "L", 3: "RGB"}


def read_processor(
    folder: Path, config: Any, *, size: int | None, trust_remote_code: bool = False
) -> Processor:
    """The folder's image processor, or one that scales to a square and to [-1, 1].

    It works with PIL even where torchvision is installed: the two give different pixels, and a model
    must not depend on what happens to be there.

    Raises:
        SourceError: `size` is given, but the folder's own processor uses another.
    """
    from transformers import AutoImageProcessor, ViTImageProcessorPil

    if (folder / "preprocessor_config.json").is_file():
        with pretrained.reading(folder):
            processor = AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=trust_remote_code
            )
        square = {"height": size, "width": size}
        if size is not None and dict(processor.size) != square:
            raise SourceError(
                f"size is {size}, but '{folder.name}' has an image processor that scales to {processor.size}",
                expected="no `size` for a model with an image processor",
                fix="remove `size` from the task",
            )
        return processor
    side = size or getattr(config, "image_size", None) or _DEFAULT_SIZE
    height, width = (side, side) if isinstance(side, int) else side
    middle = [0.5] * num_channels(config)
    return ViTImageProcessorPil(
        size={"height": height, "width": width}, image_mean=middle, image_std=middle
    )


def num_channels(config: Any) -> int:
    """Channels of the images that a network takes."""
    return getattr(config, "num_channels", None) or 3


class LazyImages(Sequence[Mapping[str, Any]]):
    """Examples with `pixel_values` and `labels`: images are decoded on access, since all may not fit in memory."""

    def __init__(
        self, rows: Rows, column: str, targets: Sequence[int] | None, processor: Processor
    ) -> None:
        self._rows = rows
        self._column = column
        self._targets = targets
        self._processor = processor
        # Networks for grey images have processors with one mean; all others are shown three channels.
        mean = getattr(processor, "image_mean", None)
        self._mode = _MODES.get(len(mean) if isinstance(mean, Sequence) else 3, "RGB")

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | list[Mapping[str, Any]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        image = as_image(self._rows[index][self._column], index).convert(self._mode)
        pixels = self._processor(
            _channels_last(image), return_tensors="np", input_data_format="channels_last"
        )
        example = {"pixel_values": pixels["pixel_values"][0]}
        return example if self._targets is None else {**example, "labels": self._targets[index]}


def as_image(value: Any, number: int) -> Image:
    """A PIL image from what a row holds.

    Raises:
        DataError: it is neither an image nor an array of bytes.
    """
    import numpy as np
    from PIL import Image

    if isinstance(value, Image.Image):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255:
        array = array.astype(np.uint8)
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[:, :, 0]
        if array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)):
            return Image.fromarray(array)
    raise DataError(
        f"row {number} holds {type(value).__name__} of shape {array.shape} and type {array.dtype}, no image",
        expected="a PIL image, or whole numbers from 0 to 255 of shape (height, width) or (height, width, 3)",
        fix="name the column that holds the images, or scale the array to bytes",
    )


def _channels_last(image: Image) -> Any:
    import numpy as np

    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
