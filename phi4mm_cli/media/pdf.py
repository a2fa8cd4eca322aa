"""PDF documents through PDFium: how many pages, how large they are, the text that they carry, and their pixels."""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image

from phi4mm_cli.closing import Closing
from phi4mm_cli.errors import InputError
from phi4mm_cli.media.decode import open_file

POINTS = 72  # to an inch
DPI = 200  # that lines and letters are drawn at where nothing else is asked for
MOST_DRAWN = 5376 * 5376  # pixels of such a page: to either side twice as many as 36 crops of 448 x 448 can show
HEAD = 1024  # bytes that the signature may come after: what the readers of PDF do, and its standard's appendix H says
MOST_PIXELS = 178_956_970  # of a scan: where Pillow refuses too
COVERS = 0.9  # of its page, from which on a picture is the page
MOST = 0.5  # of its page, from which on a picture may be what is read there
FEW_LETTERS = 200  # of a text that may be no more than a stamp or a running title on such a picture
SQUARE = 0.02  # by which the two resolutions of a scan may differ and still be meant as they are
INSET = 0.01  # pixels: keeps rounding errors from spreading a scan over one pixel more than it has

EMPTY = 2  # bytes of a value of a field that has none: the end of a text in UTF-16
LISTS = (pdfium_c.FPDF_FORMFIELD_COMBOBOX, pdfium_c.FPDF_FORMFIELD_LISTBOX)
UNSEEN = pdfium_c.FPDF_ANNOT_FLAG_HIDDEN | pdfium_c.FPDF_ANNOT_FLAG_NOVIEW
WRITTEN = (pdfium_c.FPDF_ANNOT_FREETEXT, pdfium_c.FPDF_ANNOT_STAMP, pdfium_c.FPDF_ANNOT_INK)

logging.getLogger("pypdfium2").setLevel(logging.CRITICAL)  # what it says of its own working helps nobody

# The first bytes of PNG, JPEG, GIF, WebP, TIFF; and of AVIF, HEIC and JPEG 2000.
_PICTURE = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF|II\*\0|MM\0\*|....(?:ftyp|jP  )", re.DOTALL)

# PDFium must not be entered by two threads at a time, nor may what it made be freed meanwhile.
_lock = threading.RLock()


@dataclass(frozen=True, slots=True)
class Sheet:
    """The size of a page as it is seen."""

    width: float
    height: float
    drawn: bool = False  # True: lines and letters, in points, which any number of pixels may show; False: pixels


def is_pdf(file: BinaryIO) -> bool:
    """Whether the file begins as a PDF does, and not as a picture that speaks of one."""
    file.seek(0)
    head = file.read(HEAD)
    return b"%PDF-" in head and not _PICTURE.match(head)


class Pdf(Closing):
    """An open document; a context manager. Pages are counted from 1. Raises InputError where it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file = open_file(path)
        try:
            with _lock:
                self._document = pdfium.PdfDocument(self._file)
                self._document.init_forms()
                self.page_count = len(self._document)
        except pdfium.PdfiumError as error:
            self._file.close()
            if error.err_code == pdfium_c.FPDF_ERR_PASSWORD:
                raise InputError("the PDF is locked with a password", "Save it without one.") from error
            raise InputError("the PDF is damaged", "Copy it again, or repair it.") from error
        except BaseException:
            self._file.close()
            raise
        if not self.page_count:
            self.close()
            raise InputError("the PDF has no pages", "Copy it again.")

    def sheet(self, number: int) -> Sheet:
        """The size of a page. One that is a scan is as large as its pixels, however large it says it is on paper."""
        with self._page(number) as page:
            width, height = page.get_size()
            pixels = _scan_size(page, width, height)
            return Sheet(*pixels) if pixels is not None else Sheet(width, height, drawn=True)

    def text(self, number: int) -> str:
        """What the page carries as text, a line each; "" where it carries none. What is cropped away is not on it."""
        with self._page(number) as page, closing(page.get_textpage()) as text:
            is_cropped = page.get_bbox() != page.get_mediabox()
            carried = str(text.get_text_bounded(*page.get_bbox()) if is_cropped else text.get_text_range())
        lines = re.sub("[\ufffe\x02]", "-", carried).splitlines()  # which PDFium writes for hyphens
        return "\n".join(line.rstrip() for line in lines).strip("\n")

    def shows_more(self, number: int) -> bool:
        """Whether there is more to be read on the page than its text: what was filled in or noted on it, or a picture.

        A picture is that where it is most of the page, and the text is short and nobody's reading of the picture.
        """
        few = len("".join(self.text(number).split())) <= FEW_LETTERS
        with self._page(number) as page:
            return _is_written_on(page, self._document.formenv) or (few and _is_pictured(page))

    def draw(self, number: int, size: tuple[int, int], band: tuple[int, int] | None = None) -> Image.Image:
        """A page on white in mode RGB, as many pixels as `size` says; of these only some rows where `band` is given.

        A scan in the number of pixels that it has comes out as it lies in the file.
        """
        width, height = size
        top, bottom = band or (0, height)
        with self._page(number) as page:
            across, down = (width - 2 * INSET) / page.get_width(), (height - 2 * INSET) / page.get_height()
            bitmap = pdfium.PdfBitmap.new_native(width, bottom - top, pdfium_c.FPDFBitmap_BGR)
            with closing(bitmap):
                bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, bottom - top)
                matrix = pdfium_c.FS_MATRIX(across, 0, 0, down, INSET, INSET - top)
                clip = pdfium_c.FS_RECTF(0, 0, width, bottom - top)
                pdfium_c.FPDF_RenderPageBitmapWithMatrix(bitmap, page, matrix, clip, pdfium_c.FPDF_ANNOT)
                if self._document.formenv:
                    pdfium_c.FPDF_FFLDraw(self._document.formenv, bitmap, page, 0, -top, width, height, 0, 0)
                drawn: Image.Image = bitmap.to_pil().convert("RGB").copy()
        return drawn

    @contextmanager
    def _page(self, number: int) -> Iterator[pdfium.PdfPage]:
        if not 1 <= number <= self.page_count:
            raise no_page(number, self.page_count)
        try:
            with _lock, closing(self._document[number - 1]) as page:
                yield page
        except pdfium.PdfiumError as error:
            raise InputError(f"page {number} of the PDF is damaged", "Copy it again, or leave the page out.") from error

    def close(self) -> None:
        """Free the document."""
        with _lock:
            self._document.close()
        self._file.close()


def natural_size(sheet: Sheet) -> tuple[int, int]:
    """Width and height in pixels: those of a scan, else enough to read by, and of a large sheet no more than that."""
    most = math.sqrt(MOST_DRAWN / (sheet.width * sheet.height))
    scale = min(DPI / POINTS, most) if sheet.drawn else 1.0
    return max(1, round(sheet.width * scale)), max(1, round(sheet.height * scale))


def no_page(number: int, count: int) -> InputError:
    """The error that there is no such page."""
    pages = "only one page" if count == 1 else f"pages 1 to {count}"
    return InputError(f"there is no page {number}", f"It has {pages}.")


def _is_written_on(page: pdfium.PdfPage, forms: pdfium.PdfFormEnv | None) -> bool:
    """Whether fields of a form are filled in, or there are notes to be read, stamps or handwriting."""
    for number in range(pdfium_c.FPDFPage_GetAnnotCount(page)):
        note = pdfium_c.FPDFPage_GetAnnot(page, number)
        try:
            unseen = pdfium_c.FPDFAnnot_GetFlags(note) & UNSEEN
            kind = pdfium_c.FPDFAnnot_GetSubtype(note)
            is_filled = kind == pdfium_c.FPDF_ANNOT_WIDGET and forms is not None and _is_filled(forms, note)
            if not unseen and (kind in WRITTEN or is_filled):
                return True
        finally:
            pdfium_c.FPDFPage_CloseAnnot(note)
    return False


def _is_filled(forms: pdfium.PdfFormEnv, field: pdfium_c.FPDF_ANNOTATION) -> bool:
    kind = pdfium_c.FPDFAnnot_GetFormFieldType(forms, field)
    if kind in (pdfium_c.FPDF_FORMFIELD_CHECKBOX, pdfium_c.FPDF_FORMFIELD_RADIOBUTTON):
        return bool(pdfium_c.FPDFAnnot_IsChecked(forms, field))
    if kind not in (pdfium_c.FPDF_FORMFIELD_TEXTFIELD, *LISTS):
        return False
    return bool(pdfium_c.FPDFAnnot_GetFormFieldValue(forms, field, None, 0) > EMPTY)


def _is_pictured(page: pdfium.PdfPage) -> bool:
    """Whether most of the page is pictures, and no text lies unseen behind them, as of a machine that has read them."""
    area = 0.0
    left, bottom, right, top = page.get_bbox()
    for item in page.get_objects():
        if item.type == pdfium_c.FPDF_PAGEOBJ_IMAGE:
            a, b, c, d = item.get_bounds()
            area += max(0.0, min(c, right) - max(a, left)) * max(0.0, min(d, top) - max(b, bottom))
        elif item.type == pdfium_c.FPDF_PAGEOBJ_TEXT and _is_unseen(item):
            return False
    return bool(area >= MOST * (right - left) * (top - bottom))


def _is_unseen(text: pdfium.PdfObject) -> bool:
    return bool(pdfium_c.FPDFTextObj_GetTextRenderMode(text) == pdfium_c.FPDF_TEXTRENDERMODE_INVISIBLE)


def _scan_size(page: pdfium.PdfPage, width: float, height: float) -> tuple[int, int] | None:
    """How many pixels the page has where it is a single picture, perhaps with its text unseen behind it."""
    scan = None
    for item in page.get_objects():
        if item.type == pdfium_c.FPDF_PAGEOBJ_IMAGE and scan is None:
            scan = item
        elif item.type == pdfium_c.FPDF_PAGEOBJ_TEXT:
            if not _is_unseen(item):
                return None
        elif item.type != pdfium_c.FPDF_PAGEOBJ_FORM:  # whose parts come next
            return None
    if scan is None:
        return None
    left, bottom, right, top = scan.get_bounds()
    if page.get_rotation() in (90, 270):
        left, bottom, right, top = bottom, left, top, right
    across, down = right - left, top - bottom
    if across * down < COVERS * width * height:
        return None
    columns, rows = scan.get_px_size()
    matrix = scan.get_matrix()
    if (abs(matrix.b) > abs(matrix.a)) != (page.get_rotation() in (90, 270)):
        columns, rows = rows, columns
    to_x, to_y = columns / across, rows / down
    if abs(to_x / to_y - 1) > SQUARE:  # a fax
        to_x = to_y = max(to_x, to_y)
    size = max(1, round(width * to_x)), max(1, round(height * to_y))
    return size if size[0] * size[1] <= MOST_PIXELS else None
