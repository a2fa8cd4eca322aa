"""Pages of documents: the same pixels from any kind of file, as many as are asked for, whole or in bands."""

from __future__ import annotations

import ctypes
import random
import time
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
import pytest
from documents import A4, noise, write_locked, write_scans, write_texts
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import audio, document
from phi4mm_cli.media.document import Document
from phi4mm_cli.schema import Picture

LINES = ["The quick brown fox", "jumps over the lazy dog", "", "Total 14.50"]


def read(path: Path, page: int | None = None, **view: tuple[int, int]) -> NDArray[np.uint8]:
    image = document.read(Picture(audio.source(path), page, **view))  # type: ignore[arg-type]
    assert image.mode == "RGB"
    return np.asarray(image)


# ---------------------------------------------------------------------------------------------------- equal pixels


@pytest.mark.parametrize("size", [(620, 877), (1240, 1754), (333, 470), (448, 634)])
def test_the_same_page_from_any_file(tmp_path: Path, size: tuple[int, int]) -> None:
    page = noise(*size)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    page.save(tmp_path / "a.png")
    page.save(tmp_path / "a.tif")
    page.save(tmp_path / "a.webp", lossless=True)
    page.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=turned)
    page.save(tmp_path / "many.tif", save_all=True, append_images=[noise(*size, seed=1)])
    write_scans(tmp_path / "scan.pdf", [page])
    write_scans(tmp_path / "turned.pdf", [page.transpose(Image.Transpose.ROTATE_90)], A4[::-1], rotation=90)
    for name in ("a.png", "a.tif", "a.webp", "turned.png", "many.tif", "scan.pdf", "turned.pdf"):
        path = tmp_path / name
        assert (read(path) == np.asarray(page)).all(), name
        with Document(audio.source(path)) as opened:
            sheet = opened.sheet(1)
            assert (sheet.width, sheet.height, sheet.drawn) == (*size, False), name
            assert document.shown_size(opened.picture(1)) == size
    assert (read(tmp_path / "many.tif", 2) == np.asarray(noise(*size, seed=1))).all()


def test_a_scan_in_pdf_is_the_scan(tmp_path: Path) -> None:
    """As scanners make them: JPEG at some resolution, or black and white."""
    grey = noise(300, 400).convert("L").resize((850, 1100))
    grey.convert("RGB").save(tmp_path / "a.jpg", quality=90)
    Image.open(tmp_path / "a.jpg").save(tmp_path / "colour.pdf", resolution=137, quality=90)
    grey.convert("1").save(tmp_path / "black.pdf", resolution=600)
    assert (read(tmp_path / "black.pdf") == np.asarray(grey.convert("1").convert("RGB"))).all()
    colour = read(tmp_path / "colour.pdf").astype(int)
    assert colour.shape == (1100, 850, 3)
    assert np.abs(colour - np.asarray(Image.open(tmp_path / "a.jpg"))).mean() < 3  # Pillow packed it anew


@pytest.mark.parametrize("name", ["page.png", "scan.pdf", "text.pdf"])
def test_bands_are_rows_of_the_whole(tmp_path: Path, name: str) -> None:
    noise(500, 700).save(tmp_path / "page.png")
    write_scans(tmp_path / "scan.pdf", [noise(500, 700)])
    write_texts(tmp_path / "text.pdf", [LINES * 12])
    rng = random.Random(4)
    for size in ((500, 700), (896, 1254), (320, 448)):
        whole = read(tmp_path / name, size=size)
        assert whole.shape == (size[1], size[0], 3)
        assert whole.min() < 100
        for _ in range(5):
            top, bottom = sorted(rng.sample(range(size[1] + 1), 2))
            picture = Picture(audio.source(tmp_path / name), size=size, band=(top, bottom))
            assert (np.asarray(document.read(picture)) == whole[top:bottom]).all()
            assert document.shown_size(picture) == (size[0], bottom - top)


# ------------------------------------------------------------------------------------------------------------- PDF


def test_pages_of_text(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [LINES, [], ["Page three"]])
    with Document(audio.source(path)) as opened:
        assert opened.page_count == document.page_count(path) == 3
        assert [opened.text(page) for page in (1, 2, 3)] == ["\n".join(filter(None, LINES)), "", "Page three"]
        sheet = opened.sheet(1)
        assert (sheet.width, sheet.height, sheet.drawn) == (pytest.approx(A4[0]), pytest.approx(A4[1]), True)
        assert document.shown_size(opened.picture(1)) == (1654, 2339)  # 200 dots to the inch
        with pytest.raises(InputError, match="no page 4") as caught:
            opened.sheet(4)
        assert "pages 1 to 3" in caught.value.advice
    assert read(path, 1).min() < 50
    assert read(path, 2).min() == 255


@pytest.mark.parametrize("rotation", [0, 90, 180])
def test_text_that_is_cropped_away_is_not_on_the_page(tmp_path: Path, rotation: int) -> None:
    """As in the two pages of a spread that share their content."""
    spread = pdfium.PdfDocument(write_texts(tmp_path / "whole.pdf", [["Above the cut"] + [""] * 40 + ["Below"]]))
    spread[0].set_cropbox(0, A4[1] - 200, A4[0], A4[1])
    spread[0].set_rotation(rotation)
    spread.save(tmp_path / "a.pdf")
    with Document(audio.source(tmp_path / "a.pdf")) as opened:
        assert opened.text(1) == "Above the cut"


def test_a_picture_that_speaks_of_a_pdf_is_a_picture(tmp_path: Path) -> None:
    said = PngImagePlugin.PngInfo()
    said.add_text("Comment", "made of a file that begins with %PDF-1.4")
    noise(30, 20).save(tmp_path / "a.png", pnginfo=said)
    noise(30, 20).save(tmp_path / "a.jpg", comment=b"%PDF-1.4")
    noise(30, 20).save(tmp_path / "a.gif", comment=b"%PDF-1.4")
    for name in ("a.png", "a.jpg", "a.gif"):
        assert b"%PDF-" in (tmp_path / name).read_bytes()[:1024]
        assert read(tmp_path / name).shape == (20, 30, 3)
    letter = write_texts(tmp_path / "a.pdf", [["x"]])
    letter.write_bytes(b"Content-Type: application/pdf\n\n" + letter.read_bytes())
    assert document.page_count(letter) == 1


def test_letters_are_drawn_at_the_size_asked_for(tmp_path: Path) -> None:
    """A larger page has sharper letters, not enlarged ones."""
    path = write_texts(tmp_path / "a.pdf", [["Sharp letters"] * 20])
    small = document.read(Picture(audio.source(path), 1, size=(420, 594)))
    large = document.read(Picture(audio.source(path), 1, size=(1680, 2376)))
    softer = np.asarray(small.resize(large.size, Image.Resampling.BICUBIC)).astype(int)
    greys = [np.isin(values, range(30, 226)).mean() for values in (np.asarray(large), softer)]
    assert greys[0] < 0.4 * greys[1]


def test_the_largest_page_is_drawn_in_little_memory(tmp_path: Path) -> None:
    """Of 200 inches a side, and of a strip of them."""
    for points, size in (((14400, 14400), (5376, 5376)), ((14400, 36), (40000, 100))):
        path = write_texts(tmp_path / "a.pdf", [["x"]], points=points)
        assert document.shown_size(Picture(audio.source(path), 1)) == size
        assert read(path, 1).shape == (size[1], size[0], 3)


def test_a_picture_with_words_on_it_is_no_scan(tmp_path: Path) -> None:
    """A slide with a small picture behind it is drawn as finely as any other page."""
    write_scans(tmp_path / "a.pdf", [noise(80, 60)], (720, 540))
    document_of = pdfium.PdfDocument(tmp_path / "a.pdf")
    page = document_of[0]
    words = pdfium.raw.FPDFPageObj_NewTextObj(document_of, b"Helvetica", 40.0)
    pdfium.raw.FPDFText_SetText(words, (ctypes.c_ushort * 6)(*map(ord, "Hello\0")))
    pdfium.raw.FPDFPage_InsertObject(page, words)
    page.gen_content()
    document_of.save(tmp_path / "slide.pdf")
    for name, drawn in (("a.pdf", False), ("slide.pdf", True)):
        with Document(audio.source(tmp_path / name)) as opened:
            assert opened.sheet(1).drawn == drawn


# ----------------------------------------------------------------------------------------------------- what is refused


def test_refused_at_once(tmp_path: Path) -> None:
    write_locked(tmp_path / "locked.pdf")
    whole = write_texts(tmp_path / "whole.pdf", [LINES]).read_bytes()
    (tmp_path / "damaged.pdf").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "song.mp3").write_bytes(b"ID3" + bytes(500))
    (tmp_path / "bomb.pgm").write_bytes(b"P5 30000 30000 255\n")
    refused = {"locked.pdf": "password", "damaged.pdf": "damaged", "song.mp3": "a recording", "bomb.pgm": "pixels"}
    for name, words in refused.items():
        began = time.process_time()
        with pytest.raises(InputError, match=words) as caught:
            document.page_count(tmp_path / name)
        assert caught.value.advice
        assert time.process_time() - began < 1


def test_a_document_that_changes(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [LINES])
    picture = Picture(audio.source(path), 1)
    write_texts(path, [LINES, LINES])
    with pytest.raises(InputError, match="changed"):
        document.read(picture)


def test_a_long_document_is_opened_at_once(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "long.pdf", [LINES] * 500)
    began = time.process_time()
    assert document.page_count(path) == 500
    assert time.process_time() - began < 1
    noise(20, 10).save(tmp_path / "a.gif", save_all=True, append_images=[noise(20, 10, seed=1)] * 3)
    assert document.page_count(tmp_path / "a.gif") == 1  # an animation


def test_pictures_of_telephones(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    page = noise(64, 48)
    pillow_heif.from_pillow(page).save(tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0)
    assert document.page_count(tmp_path / "a.heic") == 1
    assert np.abs(read(tmp_path / "a.heic").astype(int) - np.asarray(page)).max() <= 2
