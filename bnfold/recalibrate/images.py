"""Images in folders, as a network takes them.

``preprocess`` is a list of settings, separated by commas::

    resize=256            the shorter side, in pixels; resize=320x240 is width x height
    crop=224              from the centre; crop=320x240 is width x height
    mean=0.5              subtracted, one number or one for each channel: mean=0.485:0.456:0.406
    std=0.25              divided by
    range=1               what white becomes before the mean is subtracted; 255 leaves pixels alone
    color=rgb             or bgr, gray; by default what the channels of the model say
    layout=nchw           or nhwc
    interpolation=bilinear    or nearest, bicubic, lanczos, box

``imagenet`` stands for ``resize=256,crop=224`` with the usual mean and std; what follows it
overrides it. Without settings pixels are divided by 255. A model that takes uint8 gets the pixels.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bnfold.check.feeds.draws import numpy_dtype
from bnfold.check.feeds.feed import Feed
from bnfold.check.models.model import ValueSpec
from bnfold.errors import InputError, MissingPackageError

__all__ = ["Preprocess", "find_images", "image_feeds"]

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
_PRESETS = {
    "imagenet": "resize=256,crop=224,mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
}
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box")
_KEYS = "resize, crop, mean, std, range, color, layout, interpolation"

Size = tuple[int, int]


@dataclass(frozen=True)
class Preprocess:
    """From a file to an array.

    Attributes:
        resize: (width, height), or the length of the shorter side, or None.
        crop: (width, height) around the centre, or None.
        mean: Subtracted: one number, or one for each channel.
        std: Divided by.
        range: What white becomes before the mean is subtracted.
        color: ``rgb``, ``bgr`` or ``gray``; None where the model decides.
        layout: ``nchw`` or ``nhwc``.
        interpolation: How Pillow resizes.
    """

    resize: int | Size | None = None
    crop: Size | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    range: float = 1.0
    color: str | None = None
    layout: str = "nchw"
    interpolation: str = "bilinear"

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """Read the settings of ``--preprocess``.

        Raises:
            InputError: An unknown setting or value.
        """
        found: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            for setting in _PRESETS.get(part, part).split(","):
                key, _, value = setting.partition("=")
                try:
                    found[key] = _READERS[key](value)
                except (KeyError, ValueError) as error:
                    raise InputError(
                        f"--preprocess: '{setting}' is not understood",
                        hint=f"write imagenet or settings such as resize=256,crop=224; {_KEYS}",
                    ) from error
        return cls(**found)

    def for_input(self, spec: ValueSpec) -> Preprocess:
        """Return the settings with the colour that an input takes.

        Raises:
            InputError: The input takes no images, or others than these settings make.
        """
        if spec.kind != "tensor" or (spec.shape is not None and len(spec.shape) != 4):
            raise InputError(
                f"input '{spec.name}' takes no images: it is no tensor of four axes",
                hint="give arrays: .npz, .npy or --data-loader",
            )
        axis = 1 if self.layout == "nchw" else 3
        channels = None if spec.shape is None else spec.shape[axis]
        color = self.color or ("gray" if channels == 1 else "rgb")
        made = 1 if color == "gray" else 3
        if isinstance(channels, int) and channels != made:
            raise InputError(
                f"input '{spec.name}' takes {channels} channels where {color} images have {made}",
                hint="set color= or layout= in --preprocess",
            )
        if {len(self.mean), len(self.std)} - {1, made}:
            raise InputError(
                "--preprocess: mean and std need one number, or one for each channel",
                hint=f"{color} images have {made}",
            )
        if spec.elem_type == TensorProto.UINT8 and (self.mean, self.std) != ((0.0,), (1.0,)):
            raise InputError(
                f"input '{spec.name}' takes pixels (uint8), without mean and std",
                hint="leave mean and std out of --preprocess",
            )
        return dataclasses.replace(self, color=color)

    def load(self, path: Path, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Read one image; for ``for_input`` settings.

        Returns:
            An array (C, H, W), or (H, W, C) for ``nhwc``.

        Raises:
            InputError: The file cannot be read.
            MissingPackageError: Pillow is not installed.
        """
        pillow = _pillow()
        try:
            with pillow.open(path) as image:
                if image.mode.startswith(("I", "F")):
                    raise InputError(
                        f"{path}: images of more than 8 bits are not read",
                        hint="load it yourself with --data-loader",
                    )
                pixels = np.asarray(self._framed(image.convert(_MODES[self.color or "rgb"])))
        except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"{path}: not readable as an image ({why})") from error
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        if dtype != np.uint8:
            values = pixels.astype(np.float32) * np.float32(self.range / 255)
            values -= np.asarray(self.mean, np.float32)
            values /= np.asarray(self.std, np.float32)
            pixels = values.astype(dtype)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1) if self.layout == "nchw" else pixels)

    def _framed(self, image: Any) -> Any:
        """Resize and crop."""
        if self.resize is not None:
            size = self.resize
            if isinstance(size, int):
                width, height = image.size
                scale = size / min(width, height)
                size = (max(round(width * scale), size), max(round(height * scale), size))
            image = image.resize(size, getattr(_pillow().Resampling, self.interpolation.upper()))
        if self.crop is not None:
            left = (image.width - self.crop[0]) // 2
            top = (image.height - self.crop[1]) // 2
            if left < 0 or top < 0:
                raise ValueError(f"{image.width}x{image.height} is smaller than the crop")
            image = image.crop((left, top, left + self.crop[0], top + self.crop[1]))
        return image


def find_images(path: Path, seed: int) -> list[Path]:
    """Return all images in a folder and the folders in it, or the image that ``path`` is.

    They come in an order drawn from ``seed``: in folders by class, a batch would else be of one
    class. An empty list means that these are no images.
    """
    if path.is_file():
        return [path] if path.suffix.lower() in _SUFFIXES else []
    found = [each for each in sorted(path.rglob("*")) if each.suffix.lower() in _SUFFIXES]
    found = [each for each in found if each.is_file() and not each.name.startswith(".")]
    random.Random(seed).shuffle(found)  # noqa: S311 - an order, no secret
    return found


def image_feeds(
    images: list[Path], spec: ValueSpec, settings: Preprocess, rows: int
) -> Iterator[Feed]:
    """Yield feeds of up to ``rows`` images of one size.

    Args:
        images: The files.
        spec: The only input of the model.
        settings: How they are read.
        rows: Images in one feed.

    Raises:
        InputError: An image cannot be read, or does not have the size that the model takes.
    """
    settings = settings.for_input(spec)
    dtype = numpy_dtype(spec.elem_type) or np.dtype(np.float32)
    declared = (spec.shape or (None,) * 4)[1:]
    waiting: list[NDArray[Any]] = []
    for path in images:
        array = settings.load(path, dtype)
        wrong = any(
            isinstance(dim, int) and dim != size
            for dim, size in zip(declared, array.shape, strict=True)
        )
        if wrong or (waiting and waiting[0].shape != array.shape):
            wanted = "x".join("?" if dim is None else str(dim) for dim in declared)
            if not wrong:
                wanted = "x".join(map(str, waiting[0].shape))
            raise InputError(
                f"{path}: {'x'.join(map(str, array.shape))} where {wanted} is wanted",
                hint="bring all images to one size: --preprocess resize=256,crop=224",
            )
        waiting.append(array)
        if len(waiting) == rows:
            yield Feed(str(path), {spec.name: np.stack(waiting)}, given=True)
            waiting = []
    if waiting:
        yield Feed(str(images[-1]), {spec.name: np.stack(waiting)}, given=True)


def _pillow() -> Any:
    try:
        from PIL import Image  # noqa: PLC0415 - only where images are read
    except ImportError as error:
        raise MissingPackageError(
            "reading images needs the package 'pillow', which is not installed",
            hint="pip install 'bnfold[images]'",
        ) from error
    return Image


def _numbers(text: str) -> tuple[float, ...]:
    numbers = tuple(float(number) for number in text.split(":"))
    if not np.all(np.isfinite(numbers)):
        raise ValueError(text)
    return numbers


def _divisors(text: str) -> tuple[float, ...]:
    numbers = _numbers(text)
    if 0 in numbers:
        raise ValueError(text)
    return numbers


def _length(text: str) -> int:
    length = int(text)
    if length < 1:
        raise ValueError(text)
    return length


def _size(text: str) -> Size:
    width, _, height = text.partition("x")
    return _length(width), _length(height or width)


def _one_of(*choices: str) -> Any:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


_READERS: dict[str, Any] = {
    "resize": lambda text: _size(text) if "x" in text else _length(text),
    "crop": _size,
    "mean": _numbers,
    "std": _divisors,
    "range": lambda text: _divisors(text)[0],
    "color": _one_of(*_MODES),
    "layout": _one_of("nchw", "nhwc"),
    "interpolation": _one_of(*_INTERPOLATIONS),
}
