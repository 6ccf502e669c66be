"""One image file as values 0..255: which files PIL reads, how other ranges of values are scaled, what is refused.

A picture is its file's first frame, turned upright as its EXIF orientation says, on white where it is transparent, and
with 16 bits a pixel scaled to 8. Values whose range nothing tells (32-bit integers, floats) are refused.
What is decoded as it is needed, in other processes too, is `read_picture`; `examine` looks once at a file beforehand.
"""

from __future__ import annotations

import functools
import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from harness.validation import printable

# of each picture, in each process and epoch again; what matters is said once, by `examine`
warnings.filterwarnings("ignore", module=r"PIL\.")

ORIENTATION = 0x0112
"""EXIF's tag"""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""what undoes each orientation"""
NOT_DECODED = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""formats that PIL knows by name, and reads with the help of other programs at most"""
WIDE = {("PNG", "I"), ("PPM", "I"), ("PNG", "I;16"), ("TIFF", "I;16"), ("TIFF", "I;16B"), ("JPEG2000", "I;16")}
"""formats and modes of PIL whose values go from 0 to 65,535"""
FORMATS_OF_PARTS = {"MPO", "PSD", "ICO", "ICNS"}
"""their further frames are previews, layers and sizes of one picture"""
LONGEST = 2000
"""length of a picture in its shorter sides: of a longer one the middle is taken, as a crop does, but before a resize"""
TURNED, WIDENED, TRANSPARENT, FRAMES = "turned", "wide", "transparent", "frames"
NOTES = {
    TURNED: "turned upright, as EXIF orientation says",
    WIDENED: "scaled from 16 bits a pixel to 8, white being 65,535",
    TRANSPARENT: "laid on white where transparent",
    FRAMES: "taken from the first of several frames",
}
"""what is done to pictures, by its name: how a sentence about one or many of them ends"""


class UnreadablePicture(OSError):
    """A file that is no picture, or of which no right values can be had."""


class Examined(NamedTuple):
    """A file's bytes, with what is done to its picture (of NOTES), or why none can be had of it."""

    content: bytes
    done: tuple[str, ...]
    refusal: str | None
    brightest: int
    """the highest value where it has 16 bits a pixel, else 0"""


@functools.cache
def picture_endings() -> frozenset[str]:
    """The endings, in small letters, of files that PIL decodes by itself."""
    Image.init()
    formats = set(Image.OPEN) - NOT_DECODED | {"MPO"}
    return frozenset(ending for ending, kind in Image.registered_extensions().items() if kind in formats)


def read_picture(path: str, mode: str) -> Image.Image:
    """The picture in a file, in PIL's mode `L` or `RGB`; UnreadablePicture, which names the file, where it has none."""
    try:
        with Image.open(path) as file:
            return _middle(_picture(file, mode)[0])
    except MemoryError:
        raise
    except Exception as error:  # of whatever type: decoders have their own
        raise UnreadablePicture(f"{printable(path)} must be an image that can be read: {_reason(error)}") from error


def examine(path: str) -> Examined:
    """Decode a file to see whether all of it can be; JPEGs at an eighth of their size, a fraction of the time."""
    content = b""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if not content:
            return Examined(content, (), "it is empty", 0)
        with Image.open(io.BytesIO(content)) as image:
            if image.format in ("JPEG", "MPO"):
                image.draft(image.mode, (1, 1))
            _, done, brightest = _picture(image, "RGB")
            several = getattr(image, "is_animated", False) and image.format not in FORMATS_OF_PARTS
        return Examined(content, (*done, *([FRAMES] if several else [])), None, brightest)
    except Exception as error:
        return Examined(content, (), _reason(error), 0)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "PIL finds no picture in it"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(" ".join(text.split()))


def _picture(file: Image.Image, mode: str) -> tuple[Image.Image, list[str], int]:
    """An opened file's picture, what was done to it, and the highest value where that has 16 bits."""
    turned = getattr(file, "tag_v2", {}).get(ORIENTATION)  # a TIFF, which PIL turns as it decodes
    done, brightest, image = [], 0, file
    if file.mode.startswith(("I", "F")):
        image, brightest = _scaled(file)
        done.append(WIDENED)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image, seen_through = _opaque(image)
        done += [TRANSPARENT] if seen_through else []
    image = image.convert(mode)
    orientation = _orientation(file)
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return image, [*done, *([TURNED] if orientation in UPRIGHT or turned in UPRIGHT else [])], brightest


def _scaled(file: Image.Image) -> tuple[Image.Image, int]:
    """The high bytes of 16 bits, which PIL takes of colours too, and the highest value; ValueError for other ranges."""
    tags = getattr(file, "tag_v2", {})  # of a TIFF: bits per sample, and whether 0 is black
    if (file.format, file.mode) not in WIDE or tags.get(258, (16,)) != (16,) or tags.get(262, 1) != 1:
        raise ValueError(f"nothing tells which values of its mode {file.mode} are black and white")
    if "transparency" in file.info:
        raise ValueError("it has 16 bits a pixel and a transparent value")
    values = np.asarray(file)
    return Image.fromarray((values >> 8).astype(np.uint8)), int(values.max())


def _opaque(image: Image.Image) -> tuple[Image.Image, bool]:
    """The picture on white, and whether anything of it is transparent; where nothing is, its colours as they are."""
    coloured = image.convert("RGBA")
    lowest, _ = coloured.getchannel("A").getextrema()
    if lowest == 255:
        return image, False
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured), True


def _middle(image: Image.Image) -> Image.Image:
    """The picture, or its middle where it is so narrow that it would fill the memory once it is resized."""
    most = LONGEST * min(image.size)
    if max(image.size) <= most:
        return image
    width, height = (min(side, most) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _orientation(file: Image.Image) -> object:
    """EXIF's orientation; None where there is none, or where what there is cannot be read."""
    try:
        return file.getexif().get(ORIENTATION)
    except Exception:  # damaged EXIF data beside a picture that is not
        return None
