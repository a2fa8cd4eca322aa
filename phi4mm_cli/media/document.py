"""Documents: pictures, TIFF files of several pages, PDF files. Sizes and texts of their pages, and their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from phi4mm_cli.closing import Closing
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio, image
from phi4mm_cli.media.decode import open_file
from phi4mm_cli.media.pdf import Pdf, Sheet, is_pdf, natural_size, no_page
from phi4mm_cli.schema import Picture, Source

ADVICE = "Give it a picture (png, jpg, webp, tiff, gif, bmp, avif, ...) or a PDF."

BLANK_SIDE = 1000  # pixels that a page is reduced to, so that the grain of its paper and of JPEG goes
BLANK_RANGE = 12  # of 255, between the least and the most of red, of green or of blue in them


class Document(Closing):
    """An open document, as it was when `source` was made; a context manager. Pages are counted from 1.

    Raises InputError: not a document, damaged, locked, or changed.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        _require_unchanged(source)
        path = Path(source.path)
        self._pdf = Pdf(path) if _is_pdf(path) else None
        self.page_count = self._pdf.page_count if self._pdf else _pictures(path)

    @property
    def is_picture(self) -> bool:
        """Whether it is one picture, without pages."""
        return self._pdf is None and self.page_count == 1

    def sheet(self, number: int) -> Sheet:
        """The size of a page as it is seen, from the headers alone."""
        if self._pdf:
            return self._pdf.sheet(number)
        return Sheet(*image.image_size(self._source.path, number))

    def text(self, number: int) -> str:
        """What a page of a PDF carries as text; "" where it carries none."""
        return self._pdf.text(number) if self._pdf else ""

    def shows_more(self, number: int) -> bool:
        """Whether there is more to be read on a page than the text that it carries."""
        return self._pdf is None or self._pdf.shows_more(number)

    def is_blank(self, number: int) -> bool:
        """Whether a page is all of one colour, but for what noise makes of it; marks of a hair's breadth are seen."""
        whole = self._seen(number)
        values = np.asarray(whole.reduce(max(1, max(whole.size) // BLANK_SIDE)))
        ranges = values.max(axis=(0, 1)).astype(int) - values.min(axis=(0, 1))  # colours may be equally light
        return int(ranges.max()) <= BLANK_RANGE

    def _seen(self, number: int) -> Image.Image:
        if self._pdf:
            width, height = natural_size(self._pdf.sheet(number))
            scale = min(1.0, BLANK_SIDE / max(width, height))
            return self._pdf.draw(number, (max(1, round(width * scale)), max(1, round(height * scale))))
        return image.read(self.picture(number))

    def picture(self, number: int, size: tuple[int, int] | None = None, band: tuple[int, int] | None = None) -> Picture:
        """A page for the model to see."""
        page = number if self._pdf or self.page_count > 1 else None
        return Picture(self._source, page, size=size, band=band)

    def close(self) -> None:
        """Free what is open."""
        if self._pdf:
            self._pdf.close()


def is_one(path: Path) -> bool:
    """Whether a file begins as a picture or a document does, whole or damaged. Raises InputError: no file."""
    with open_file(path) as file:
        return is_pdf(file) or image.is_picture(file)


def page_count(path: Path) -> int:
    """How many pages a document has, from its header. Raises InputError where it is none, or cannot be opened."""
    with Document(audio.source(path)) as document:
        return document.page_count


def _pictures(path: Path) -> int:
    try:
        return image.page_count(path)
    except InputError as error:
        raise InputError(error.message, ADVICE) if error.advice == image.ADVICE else error from None


def read(picture: Picture) -> Image.Image:
    """What the model is to see, in mode RGB: a page, a picture or a frame, or some of its rows. Raises InputError."""
    path = Path(picture.source.path)
    if picture.time is None and _is_pdf(path):
        _require_unchanged(picture.source)
        with Pdf(path) as pdf:
            number, sheet = picture.page or 1, pdf.sheet(picture.page or 1)
            if sheet.drawn:
                return pdf.draw(number, picture.size or natural_size(sheet), picture.band)
            whole = pdf.draw(number, natural_size(sheet))
    else:
        whole = image.read(picture)
    if picture.size is not None and picture.size != whole.size:
        whole = whole.resize(picture.size, Image.Resampling.LANCZOS)
    return whole.crop((0, picture.band[0], whole.width, picture.band[1])) if picture.band is not None else whole


def shown_size(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels of what `read` gives, from headers or a video's first frame. Raises likewise."""
    size = picture.size
    if size is None and picture.time is not None:
        from phi4mm_cli.media import video

        size = video.frame_size(picture.source)
    if size is None and _is_pdf(Path(picture.source.path)):
        with Pdf(Path(picture.source.path)) as pdf:
            size = natural_size(pdf.sheet(picture.page or 1))
    width, height = size or image.image_size(picture.source.path, picture.page)
    return (width, height) if picture.band is None else (width, picture.band[1] - picture.band[0])


def _require_unchanged(source: Source) -> None:
    if audio.source(source.path) != source:
        raise InputError("the file has changed since this run began", "Run it again.")


def _is_pdf(path: Path) -> bool:
    with open_file(path) as file:
        return is_pdf(file)


__all__ = ["Document", "Sheet", "is_one", "no_page", "page_count", "read", "shown_size"]
