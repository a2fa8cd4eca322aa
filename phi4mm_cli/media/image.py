"""Pictures as the model sees them, upright and in RGB: image files, pages of files that have several, video frames."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio
from phi4mm_cli.media.decode import open_file
from phi4mm_cli.media.pdf import no_page
from phi4mm_cli.schema import Picture

# What may be opened. Others that Pillow knows would run a program (EPS), are mistaken for anything (TGA), or are data.
FORMATS = frozenset(
    ("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "PSD", "QOI", "TIFF", "WEBP")
)
ADVICE = "Give it a picture (png, jpg, webp, tiff, gif, bmp, avif, ...)."
FIRST_BYTES = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"RIFF", "a recording or a video"),
    (b"\x1aE\xdf\xa3", "a recording or a video"),
    (b"fLaC", "a recording"),
    (b"ID3", "a recording"),
)
# The errors that Pillow's readers raise about damaged files.
DAMAGE = (OSError, RuntimeError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error, zlib.error)

# Pillow warns of large pictures, and refuses those of twice that size; only the second is wanted. What else it has to
# say about a file that it can read is of no use to anybody.
warnings.filterwarnings("ignore", module=r"PIL\.")


def read(picture: Picture) -> Image.Image:
    """The picture in mode RGB. Raises InputError: not a picture, damaged, too large, no such page, or changed."""
    path = Path(picture.source.path)
    if audio.source(path) != picture.source:
        raise InputError("the file has changed since this run began", "Run it again.")
    with open_file(path) as file:
        if picture.time is not None:
            from phi4mm_cli.media import video  # here, for it takes a fifth of a second to load

            return video.frame(file, picture.time)
        with _opened(file, picture.page) as image:
            image.load()
            return _rgb(ImageOps.exif_transpose(image))


def is_picture(file: BinaryIO) -> bool:
    """Whether the file begins as a picture does, even if it is damaged, or of a kind that needs a plug-in."""
    Image.init()
    try:
        with Image.open(file, formats=_known()):
            return True
    except UnidentifiedImageError:
        return _is_heic(file)
    except (Image.DecompressionBombError, *DAMAGE):
        return True


def image_size(path: str | Path, page: int | None = None) -> tuple[int, int]:
    """Width and height in pixels as the picture is seen, from the header alone. Raises InputError like `read`."""
    with open_file(Path(path)) as file, _opened(file, page) as image:
        width, height = image.size
        if isinstance(image, TiffImageFile):  # some versions of Pillow give the size as it is seen
            width, height = (int(image.tag_v2[tag]) for tag in (ExifTags.Base.ImageWidth, ExifTags.Base.ImageLength))
        # Of PNG, Pillow would decode the pixels first, in search of what may stand behind them.
        is_quick = image.format == "PNG" and not _is_told_later(file)
        exif = Image.Image.getexif(image) if is_quick else image.getexif()
        return (height, width) if exif.get(ExifTags.Base.Orientation, 1) in range(5, 9) else (width, height)


def _is_told_later(file: BinaryIO) -> bool:
    """Whether a PNG has anything behind its pixels that may say how it is turned, by the names of its chunks."""
    before, place, found = file.tell(), 8, list[bytes]()
    file.seek(place)
    while len(head := file.read(8)) == 8:
        found.append(head[4:])
        place += 12 + int.from_bytes(head[:4], "big")
        file.seek(place)
    file.seek(before)
    pixels = found.index(b"IDAT") if b"IDAT" in found else len(found)
    return not {b"eXIf", b"zTXt", b"iTXt", b"tEXt"}.isdisjoint(found[pixels:])


def page_count(path: str | Path) -> int:
    """How many pages a picture has: several in TIFF alone; of an animation or a burst, only the first picture counts.

    From the header alone. Raises InputError like `read`.
    """
    with open_file(Path(path)) as file, _opened(file, None) as image:
        return image.n_frames if isinstance(image, TiffImageFile) else 1


@contextmanager
def _opened(file: BinaryIO, page: int | None) -> Iterator[Image.Image]:
    """The file's header, at `page`; what Pillow raises about it, and while it decodes, as InputError."""
    Image.init()
    if _is_heic(file):
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    try:
        with Image.open(file, formats=_known()) as image:
            count = getattr(image, "n_frames", 1) if page is not None else 1
            if page is not None and not 1 <= page <= count:
                raise no_page(page, count)
            if page is not None and page > 1:
                image.seek(page - 1)
            if 0 in image.size:
                raise InputError(f"the picture has no pixels: {image.width} x {image.height}", ADVICE)
            yield image
    except UnidentifiedImageError as error:
        raise _not_a_picture(file) from error
    except Image.DecompressionBombError as error:
        message = f"the picture has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels"
        raise InputError(message, "Scale it down, or cut it into pieces.") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"the picture cannot be decoded: {reason}", "Copy it again, or save it as PNG.") from error


def _known() -> list[str]:
    return [name for name in Image.OPEN if name in FORMATS]


def _not_a_picture(file: BinaryIO) -> InputError:
    if _is_heic(file):
        message, advice = "it is a HEIC picture, which needs a plug-in", "Run `pip install pillow-heif`."
        return InputError(message, f"{advice} Where that is done, copy it again: it is damaged.")
    file.seek(0)
    head = file.read(16)
    if head[4:8] == b"ftyp":
        return InputError("it is a recording or a video, not a picture", ADVICE)
    kind = next((kind for magic, kind in FIRST_BYTES if head.startswith(magic)), None)
    return InputError(f"it is {kind}, not a picture" if kind else "it is not a picture that can be read", ADVICE)


def _is_heic(file: BinaryIO) -> bool:
    file.seek(4)
    kind = file.read(8)
    file.seek(0)
    return kind[:4] == b"ftyp" and kind[4:] in (b"heic", b"heix", b"mif1", b"msf1")


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB; what is transparent shows white, as on paper."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode[0] in "IF":
        image = _eight_bits(image)
    elif image.has_transparency_data:
        opaque = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), opaque).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 or 32 bits as 8; numbers with a fraction may go to 1, to 255 or anywhere."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32))
    lowest, highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    limits = (1.0, 255.0) if image.mode == "F" else (65535.0,)
    top = next((limit for limit in limits if lowest == 0.0 and highest <= limit), highest)
    return Image.fromarray(np.rint((values - lowest) * (255.0 / (top - lowest))).astype(np.uint8))
