"""PDF files for the tests: scans pixel for pixel, pages of text, and a locked one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
from PIL import Image

A4 = (595.276, 841.89)  # points


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Every pixel that is misplaced shows."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def write_scans(path: Path, pages: Sequence[Image.Image], points: tuple[float, float] = A4, rotation: int = 0) -> Path:
    """A picture a page, stored without loss, turned clockwise by `rotation` degrees when it is shown."""
    document = pdfium.PdfDocument.new()
    for picture in pages:
        page = document.new_page(*points)
        image = pdfium.PdfImage.new(document)
        image.set_bitmap(pdfium.PdfBitmap.from_pil(picture))
        image.set_matrix(pdfium.PdfMatrix().scale(*points))
        page.insert_obj(image)
        page.set_rotation(rotation)
        page.gen_content()
    document.save(path)
    return path


def write_texts(
    path: Path, pages: Sequence[Sequence[str]], points: tuple[float, float] = A4, encryption: str = "", notes: str = ""
) -> Path:
    """Lines of Helvetica on each page, which has `notes` or fields of a form too; an empty page has no text."""
    objects = [
        "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [] >> >>",
        "",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    kids = []
    for lines in pages:
        shown = " ".join(f"({line}) Tj T*" for line in lines)
        content = f"BT /F1 12 Tf 14 TL 72 {points[1] - 72} Td {shown} ET" if lines else ""
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
        box = f"/MediaBox [0 0 {points[0]} {points[1]}] /Resources << /Font << /F1 3 0 R >> >>"
        objects.append(f"<< /Type /Page /Parent 2 0 R {box} /Annots [{notes}] /Contents {len(objects)} 0 R >>")
        kids.append(f"{len(objects)} 0 R")
    objects[1] = f"<< /Type /Pages /Count {len(kids)} /Kids [{' '.join(kids)}] >>"
    body, offsets = "%PDF-1.7\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    body += f"xref\n0 {size}\n0000000000 65535 f \n{table}trailer << /Size {size} /Root 1 0 R {encryption} >>\n"
    path.write_text(f"{body}startxref\n{body.index('xref')}\n%%EOF\n", "latin-1")
    return path


def write_locked(path: Path) -> Path:
    """A PDF whose password nobody knows."""
    hashes = f"/O <{'0f' * 32}> /U <{'f0' * 32}>"
    locked = f"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 {hashes} >> /ID [<00> <00>]"
    return write_texts(path, [["secret"]], encryption=locked)
