"""`phi4mm ocr`: pages as requests, answers that do not end, bands joined, text layers, outputs, and what is refused."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pypdfium2 as pdfium
import pytest
from at_work import stop_at_once, wait_for
from conftest import Phi4mm
from documents import noise, write_locked, write_scans, write_texts
from journalled import outputs
from jsonschema import Draft202012Validator
from PIL import ExifTags, Image
from scripted import ScriptedEngine, run_alone

from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.engines.echo import ROOM, EchoEngine
from phi4mm_cli.errors import InputError, RequestError
from phi4mm_cli.flows import ocr
from phi4mm_cli.flows.ocr import Options
from phi4mm_cli.media import audio, document
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Pages
from phi4mm_cli.paging import Detail, selection
from phi4mm_cli.reading import PROMPT, TEMPERATURES, Reading, TextLayer
from phi4mm_cli.schema import Finish, Picture, Request, Result

ECHO = ("--engine", "echo")
TABLE = "| Name | Price |\n|---|---|\n| Tea | 2.50 |"
MERGED = '<table><tr><th colspan="2">Prices</th></tr><tr><td>Tea</td><td>2.50</td></tr></table>'


def answered(text: str, finish: Finish = "stop") -> Result:
    return Result(text, tuple(range(len(text.split()))), finish, 1)


def picture_of(request: Request) -> Picture:
    (picture,) = request.pictures
    return picture


def pages_of(path: Path, engine: EchoEngine, options: Options | None = None) -> Pages:
    body = run_alone(lambda: ocr.flow(audio.source(path), options or Options()), engine)
    assert isinstance(body, Pages)
    return body


# ---------------------------------------------------------------------------------------------------------- requests


def test_pages_are_requests_of_one_flow_and_fill_a_batch(tmp_path: Path) -> None:
    class Counting(EchoEngine):
        most = polls = 0

        def poll(self, timeout: float | None = None) -> list[tuple[str, Result | RequestError]]:
            Counting.most = max(Counting.most, ROOM - self.room())
            Counting.polls += 1
            if Counting.most < 2 and Counting.polls < 3000:  # until there is another page, or none comes
                time.sleep(0.001)
                return []
            return super().poll(timeout)

    path = write_texts(tmp_path / "a.pdf", [["text"]] * 150)
    found = pages_of(path, Counting())
    assert [page.page for page in found.pages] == list(range(1, 151))
    assert [f"[picture page {page.page}] {PROMPT}" for page in found.pages] == [page.text for page in found.pages]
    assert 1 < Counting.most <= ROOM


def test_what_a_page_is_asked(tmp_path: Path) -> None:
    noise(600, 800).save(tmp_path / "a.png")
    engine = ScriptedEngine(lambda request: answered("x"))
    (page,) = pages_of(tmp_path / "a.png", engine).pages
    (request,) = engine.asked
    (message,) = request.messages
    assert message.parts == (Picture(audio.source(tmp_path / "a.png")), PROMPT)  # as its authors would give it
    assert request.sampling.max_new_tokens > page.image_tokens
    assert request.sampling.temperature == 0


def test_only_some_pages(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["text"]] * 5)
    found = pages_of(path, EchoEngine(), Options(selection("2,4-")))
    assert [page.page for page in found.pages] == [2, 4, 5]
    assert (found.coverage.unit, found.coverage.total, found.coverage.read) == ("pages", 5, 3)
    assert [line for line in found.text.splitlines() if line.startswith("<!--")] == [
        "<!-- page 2 -->",
        "<!-- page 4 -->",
        "<!-- page 5 -->",
    ]
    with pytest.raises(InputError, match="no page 6") as caught:
        pages_of(path, EchoEngine(), Options(selection("6-")))
    assert "pages 1 to 5" in caught.value.advice


# ----------------------------------------------------------------------------------------------- answers without end


def script(page: int, finishes: dict[float, Finish], text: str = "Text") -> Callable[[Request], Result]:
    """One page of several ends as `finishes` says at each temperature, the others at once."""

    def answer(request: Request) -> Result:
        warmth = request.sampling.temperature
        finish = finishes.get(warmth, "length") if picture_of(request).page == page else "stop"
        return answered(f"{text} at {warmth:g}", finish)

    return answer


def test_a_page_that_does_not_end_is_decoded_again_warmer(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["text"]] * 3)
    engine = ScriptedEngine(script(2, {TEMPERATURES[1]: "stop"}))
    found = pages_of(path, engine)
    assert [page.text for page in found.pages] == ["Text at 0", "Text at 0.5", "Text at 0"]
    (warning,) = found.warnings
    assert (warning.code, warning.page, warning.healed) == ("token_limit", 2, True)
    assert sorted(request.sampling.temperature for request in engine.asked) == [0, 0, 0, *TEMPERATURES[:2]]


def test_a_page_that_never_ends_is_kept_and_marked(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["text"]] * 2)
    found = pages_of(path, ScriptedEngine(script(1, {})))
    assert [page.text for page in found.pages] == ["Text at 0", "Text at 0"]
    (warning,) = found.warnings
    assert (warning.code, warning.page, warning.healed) == ("token_limit", 1, False)
    assert "to no avail" in warning.action


@pytest.mark.parametrize("phrase", ["and so on ", "| 0 | 0 |\n", "x", "A long sentence that comes back. "])
def test_loops_are_cut_after_their_first_telling(tmp_path: Path, phrase: str) -> None:
    noise(60, 80).save(tmp_path / "a.png")
    text = f"# Title\n\nAll of {phrase * 80}{phrase[: len(phrase) // 2]}"
    found = pages_of(tmp_path / "a.png", ScriptedEngine(lambda request: answered(text, "length")))
    assert found.text == f"# Title\n\nAll of {phrase}".rstrip()
    (warning,) = found.warnings
    assert (warning.code, warning.page) == ("looping", 1)
    assert "cut" in warning.action
    ended = pages_of(tmp_path / "a.png", ScriptedEngine(lambda request: answered(text)))
    assert (ended.text, ended.warnings) == (text.strip("\n"), ())  # a page may be full of zeros


def test_a_limit_of_the_user_is_kept_to(tmp_path: Path) -> None:
    noise(60, 80).save(tmp_path / "a.png")
    engine = ScriptedEngine(lambda request: answered("one two", "length"))
    reading = Reading(sampling=SamplingOptions(max_new_tokens=2))
    found = pages_of(tmp_path / "a.png", engine, Options(reading=reading))
    assert (found.text, [warning.action for warning in found.warnings]) == ("one two", ["kept as it is"])
    assert [request.sampling.max_new_tokens for request in engine.asked] == [2]


@pytest.mark.parametrize("fence", ["```markdown\n{}\n```", "```md\n{}", "\n```html\n{}\n```\n"])
def test_a_fence_around_it_all_is_no_text(tmp_path: Path, fence: str) -> None:
    noise(60, 80).save(tmp_path / "a.png")
    assert pages_of(tmp_path / "a.png", ScriptedEngine(lambda _: answered(fence.format(TABLE)))).text == TABLE
    for kept in (
        "```python\nprint()\n```",
        "```html\nT1\n```\n\nTotal: 5\n\n```html\nT2\n```",
        "```md\nT1\n```\nTotal: 5",
    ):
        assert pages_of(tmp_path / "a.png", ScriptedEngine(lambda _, text=kept: answered(text))).text == kept  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------------- bands


LINE_HEIGHT = 40  # pixels


def ruled(width: int, height: int) -> Image.Image:
    """A page that is not blank."""
    page = Image.new("L", (width, height), 255)
    page.paste(0, (100, 20, 200, height - 20))
    return page


def reads_lines(request: Request) -> Result:
    """Reads line n of a page at n times its height; of those that the band cuts, rubbish."""
    picture = picture_of(request)
    assert picture.size is not None
    top, bottom = picture.band or (0, picture.size[1])
    scale = picture.size[1] / 12000
    lines = [f"Line {number} says {number * number % 97} things" for number in range(12000 // LINE_HEIGHT)]
    shown = []
    for number, line in enumerate(lines):
        above, below = number * LINE_HEIGHT * scale, (number + 1) * LINE_HEIGHT * scale
        if above >= top and below <= bottom:
            shown.append(line)
        elif below > top and above < bottom:
            shown.append("~" + line[3:9])
    return answered("\n".join(shown))


def test_a_dense_page_is_read_in_bands_and_no_line_twice(tmp_path: Path) -> None:
    ruled(1280, 12000).save(tmp_path / "strip.png")
    found = pages_of(tmp_path / "strip.png", ScriptedEngine(reads_lines))
    (page,) = found.pages
    assert page.bands == 3
    numbers = [int(line.split()[1]) for line in page.text.splitlines()]
    assert numbers == list(range(300))
    assert not found.warnings
    low = ScriptedEngine(reads_lines)
    assert pages_of(tmp_path / "strip.png", low, Options(reading=Reading(Detail.LOW))).pages[0].bands == 1
    assert len(low.asked) == 1


def test_bands_without_common_lines_are_both_kept(tmp_path: Path) -> None:
    ruled(1280, 12000).save(tmp_path / "strip.png")

    def answer(request: Request) -> Result:
        top, _ = picture_of(request).band or (0, 0)
        return answered(f"only {top} here")

    found = pages_of(tmp_path / "strip.png", ScriptedEngine(answer))
    assert len(found.text.splitlines()) == 3
    assert [warning.code for warning in found.warnings] == ["unjoined_bands"]
    blank = pages_of(tmp_path / "strip.png", ScriptedEngine(lambda _: answered("")))
    assert (blank.text, [warning.code for warning in blank.warnings]) == ("", ["empty_answer"])


# ------------------------------------------------------------------------------------------------- text of the file


def test_text_that_a_pdf_carries(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["Carried text"], []])
    read_by = {}
    for layer in TextLayer:
        engine = ScriptedEngine(lambda request: answered("Read text"))
        found = pages_of(path, engine, Options(reading=Reading(text_layer=layer)))
        read_by[layer] = [(page.text, page.read_by) for page in found.pages]
        assert [warning.code for warning in found.warnings] == ["no_text" if layer is TextLayer.ONLY else "blank_page"]
        assert len(engine.asked) == (layer is TextLayer.IGNORE)
    assert read_by[TextLayer.IGNORE] == [("Read text", "model"), ("", "model")]
    assert read_by[TextLayer.PREFER] == [("Carried text", "text_layer"), ("", "model")]
    assert read_by[TextLayer.ONLY] == [("Carried text", "text_layer"), ("", "text_layer")]


def test_a_page_without_text_of_its_own_is_read(tmp_path: Path) -> None:
    path = write_scans(tmp_path / "a.pdf", [noise(60, 80)])
    found = pages_of(path, EchoEngine(), Options(reading=Reading(text_layer=TextLayer.PREFER)))
    assert (found.pages[0].read_by, found.pages[0].text[:8]) == ("model", "[picture")


FIELD = "<< /Type /Annot /Subtype /Widget /FT /Tx /T (n) /Rect [72 600 272 620] /V ({}) >>"
TICK = "<< /Type /Annot /Subtype /Widget /FT /Btn /T (n) /Rect [72 600 92 620] /V /{0} /AS /{0} >>"
NOTE = "<< /Type /Annot /Subtype /FreeText /Rect [72 600 272 620] /Contents (Not paid) /F {} >>"


@pytest.mark.parametrize(
    ("notes", "read_by"),
    [
        (FIELD.format("Zoltan"), "model"),
        (FIELD.format(""), "text_layer"),
        (TICK.format("Yes"), "model"),
        (TICK.format("Off"), "text_layer"),
        (NOTE.format(4), "model"),
        (NOTE.format(2), "text_layer"),  # hidden
        ("<< /Type /Annot /Subtype /Link /Rect [72 600 272 620] >>", "text_layer"),
    ],
)
def test_a_page_that_says_more_than_its_text_is_read(tmp_path: Path, notes: str, read_by: str) -> None:
    path = write_texts(tmp_path / "a.pdf", [["Name:"]], notes=notes)
    found = pages_of(path, EchoEngine(), Options(reading=Reading(text_layer=TextLayer.PREFER)))
    assert found.pages[0].read_by == read_by


@pytest.mark.parametrize(
    ("words", "unseen", "read_by"), [(6, False, "model"), (6, True, "text_layer"), (80, False, "text_layer")]
)
def test_a_scan_with_a_stamp_is_read(tmp_path: Path, words: int, unseen: bool, read_by: str) -> None:
    """But not one that a machine has read, nor a slide with a picture behind it."""
    stamped = pdfium.PdfDocument(write_scans(tmp_path / "scan.pdf", [noise(60, 80)]))
    page, text = stamped[0], b"Page " * words
    stamp = pdfium.raw.FPDFPageObj_NewTextObj(stamped, b"Helvetica", 1.0)
    pdfium.raw.FPDFText_SetText(stamp, (ctypes.c_ushort * (len(text) + 1))(*text, 0))
    if unseen:
        pdfium.raw.FPDFTextObj_SetTextRenderMode(stamp, pdfium.raw.FPDF_TEXTRENDERMODE_INVISIBLE)
    pdfium.raw.FPDFPage_InsertObject(page, stamp)
    page.gen_content()
    stamped.save(tmp_path / "a.pdf")
    found = pages_of(tmp_path / "a.pdf", EchoEngine(), Options(reading=Reading(text_layer=TextLayer.PREFER)))
    assert found.pages[0].read_by == read_by
    only = pages_of(tmp_path / "a.pdf", EchoEngine(), Options(reading=Reading(text_layer=TextLayer.ONLY)))
    assert only.text.split() == ["Page"] * words


# ------------------------------------------------------------------------------------------------------- blank pages


def test_nothing_is_asked_of_a_blank_page(tmp_path: Path) -> None:
    dust = np.full((1754, 1240), 250, np.uint8) - np.random.default_rng(0).integers(0, 6, (1754, 1240), dtype=np.uint8)
    dot = dust.copy()
    dot[800:803, 600:603] = 60  # a full stop, at 150 dots to the inch
    Image.fromarray(dust).save(tmp_path / "blank.jpg", quality=70)
    Image.fromarray(dot).save(tmp_path / "dot.png")
    green = Image.new("RGB", (600, 400), (0, 130, 0))
    green.paste((255, 0, 0), (40, 40, 200, 60))
    assert green.convert("L").getextrema() == (76, 76)
    green.save(tmp_path / "green.png")
    engine = ScriptedEngine(lambda request: answered("."))
    found = pages_of(tmp_path / "blank.jpg", engine)
    assert (found.text, engine.asked) == ("", [])
    assert [(warning.code, warning.healed) for warning in found.warnings] == [("blank_page", False)]
    for marked in ("dot.png", "green.png"):
        assert pages_of(tmp_path / marked, engine).text == "."
    back = pages_of(write_texts(tmp_path / "a.pdf", [["x"], [], ["x"]]), engine)
    assert [page.text for page in back.pages] == [".", "", "."]
    assert [(one.code, one.page, one.healed) for one in back.warnings] == [("blank_page", 2, True)]  # as it should be


# ------------------------------------------------------------------------------------------------ pages that fail


def test_a_page_that_the_engine_fails_on_costs_no_other(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["x"]] * 6)

    def answer(request: Request) -> Result | RequestError:
        if picture_of(request).page in (2, 5):
            return RequestError("it does not fit into memory", "Use smaller pictures")
        return answered("Read")

    found = pages_of(path, ScriptedEngine(answer))
    assert [page.text for page in found.pages] == ["Read", "", "Read", "Read", "", "Read"]
    assert [(warning.code, warning.page, warning.healed) for warning in found.warnings] == [
        ("failed_page", 2, False),
        ("failed_page", 5, False),
    ]
    assert (found.coverage.total, found.coverage.read) == (6, 4)
    with pytest.raises(RequestError, match="memory"):
        pages_of(path, ScriptedEngine(answer), Options(selection("2,5")))


def test_only_text_needs_no_model(phi4mm: Phi4mm, tmp_path: Path) -> None:
    write_texts(tmp_path / "a.pdf", [["Carried text"]])
    run = phi4mm("ocr", "a.pdf", "--text-layer", "only")
    assert (run.returncode, run.stdout, run.stderr) == (0, "Carried text\n", "")


def test_what_is_said_of_many_pages_is_one_line(phi4mm: Phi4mm, tmp_path: Path) -> None:
    write_texts(tmp_path / "a.pdf", [["One"], [], [], ["Four"], []])
    run = phi4mm("ocr", "a.pdf", "--text-layer", "only", "--jsonl")
    assert [(one["code"], one["page"]) for one in json.loads(run.stdout)["warnings"]] == [
        ("no_text", page) for page in (2, 3, 5)
    ]
    [line] = run.stderr.splitlines()
    assert line.startswith("phi4mm: warning: a.pdf, pages 2-3,5: the page carries no text; left empty")


# ----------------------------------------------------------------------------------------------------------- outputs


def test_where_results_go(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    write_texts(tmp_path / "scans" / "a.pdf", [["x"], ["y"]])
    noise(60, 80).save(tmp_path / "scans" / "deep" / "b.webp")
    (tmp_path / "scans" / "talk.mp3").touch()
    one = phi4mm("ocr", "scans/deep/b.webp", *ECHO)
    assert (one.returncode, one.stdout, one.stderr) == (0, f"[picture] {PROMPT}\n", "")
    assert phi4mm("ocr", "scans", "-o", "out", "-f", "md,txt,json", *ECHO).returncode == 0
    assert sorted(outputs(tmp_path / "out")) == [
        f"{name}.{kind}" for name in ("a", "deep/b") for kind in ("json", "md", "txt")
    ]
    assert (tmp_path / "out" / "a.txt").read_text() == f"[picture page 1] {PROMPT}\n\f[picture page 2] {PROMPT}\n"
    assert "<!-- page 2 -->\n\n[picture page 2]" in (tmp_path / "out" / "a.md").read_text()
    result = json.loads((tmp_path / "out" / "a.json").read_text())
    Draft202012Validator(json_schema()).validate(result)
    assert result["task"] == "pages"
    assert [page["image_tokens"] for page in result["pages"]] == [6188, 6188]
    verbose = phi4mm("ocr", "scans/a.pdf", "--pages", "2", "-v", *ECHO)
    assert "1 of 2 pages read" in verbose.stderr
    with (tmp_path / "scans" / "a.pdf").open("rb") as piped:
        assert "page 2" in phi4mm("ocr", "-", *ECHO, stdin=piped).stdout


def test_tables_in_files_of_their_own(tmp_path: Path) -> None:
    """Through the command's own writer of them, as the echo engine writes no tables."""
    noise(60, 80).save(tmp_path / "a.png")
    body = pages_of(tmp_path / "a.png", ScriptedEngine(lambda _: answered(f"{TABLE}\n\nand\n\n{MERGED}")))
    (page,) = body.pages
    assert [table.rows for table in page.tables] == [
        (("Name", "Price"), ("Tea", "2.50")),
        (("Prices", "Prices"), ("Tea", "2.50")),
    ]
    assert MERGED in page.text


def test_table_files(phi4mm: Phi4mm, tmp_path: Path) -> None:
    write_texts(tmp_path / "a.pdf", [TABLE.splitlines(), ["nothing"], MERGED.splitlines()])
    run = phi4mm("ocr", "a.pdf", "--text-layer", "only", "--table", "csv", "--json", "-o", "out")
    assert run.returncode == 0, run.stderr
    assert sorted(outputs(tmp_path / "out")) == ["a.json", "a.table1.csv", "a.table2.csv"]
    with (tmp_path / "out" / "a.table2.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["Prices", "Prices"], ["Tea", "2.50"]]
    again = phi4mm("ocr", "a.pdf", "--text-layer", "only", "--table", "csv", "--no-overwrite", "-o", "out")
    assert again.returncode == 2
    assert "table1.csv exists" in again.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.table2.csv").write_text("mine")
    (tmp_path / "mine" / "a.table-notes.csv").write_text("mine")
    only = ("ocr", "a.pdf", "--text-layer", "only", "--table", "csv", "--no-overwrite", "-o", "mine")
    for run in (phi4mm(*only), phi4mm(*only, "--dry-run")):
        assert (run.returncode, "mine/a.table2.csv exists" in run.stderr + run.stdout) == (2, True)
    assert (tmp_path / "mine" / "a.table2.csv").read_text() == "mine"
    (tmp_path / "mine" / "a.table2.csv").unlink()
    assert phi4mm(*only).returncode == 0
    beside = phi4mm("ocr", "a.pdf", "--text-layer", "only", "--table", "csv")
    assert (beside.returncode, beside.stdout) == (0, "")
    assert {"a.md", "a.table1.csv"} <= {path.name for path in tmp_path.iterdir()}
    for place, words in (
        ("--jsonl", "and --jsonl lines"),
        ("--jsonl -o a.jsonl", "and --jsonl lines"),
        ("-o -", "stdout"),
    ):
        refused = phi4mm("ocr", "a.pdf", "--table", "csv", *place.split(), *ECHO)
        assert (refused.returncode, words in refused.stderr) == (2, True)


# ------------------------------------------------------------------------------------------- the model sees the same


def test_the_same_answer_from_any_file_and_the_price_that_was_told(
    phi4mm: Phi4mm, tmp_path: Path, tiny_folder: Path
) -> None:
    page = noise(14, 20).resize((420, 600), Image.Resampling.NEAREST)
    page.save(tmp_path / "page.jpg", quality=95)
    page = Image.open(tmp_path / "page.jpg")
    page.load()
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 8
    page.save(tmp_path / "a.png")
    page.save(tmp_path / "b.webp", lossless=True)
    page.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png", exif=turned)
    page.save(tmp_path / "c.tif", save_all=True, append_images=[noise(9, 30).resize((900, 300))])
    write_scans(tmp_path / "d.pdf", [page])
    packed = pdfium.PdfDocument.new()
    image = pdfium.PdfImage.new(packed)
    image.load_jpeg(tmp_path / "page.jpg")
    image.set_matrix(pdfium.PdfMatrix().scale(252, 360))
    sheet = packed.new_page(252, 360)
    sheet.insert_obj(image)
    sheet.gen_content()
    packed.save(tmp_path / "e.pdf")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "page.jpg").read_bytes()[:-9000])
    names = ["page.jpg", "a.png", "b.webp", "turned.png", "c.tif", "d.pdf", "e.pdf"]
    arguments = ("--jsonl", "--max-new-tokens", "6", "--device", "cpu", "--model", tiny_folder)
    run = phi4mm("ocr", *names, "cut.jpg", *arguments)
    assert run.returncode == 3, run.stderr
    assert "cut.jpg: the picture cannot be decoded" in run.stderr
    lines = map(json.loads, run.stdout.splitlines())
    results = {result["source"]: result for result in lines if result["task"] == "pages"}
    first = {name: results[name]["pages"][0] for name in names}
    assert len(first["a.png"]["text"]) > 5
    assert {(one["text"], one["image_tokens"]) for one in first.values()} == {
        (first["a.png"]["text"], first["a.png"]["image_tokens"])
    }
    words = {
        result["usage"]["prompt_tokens"] / len(result["pages"])
        - sum(page["image_tokens"] for page in result["pages"]) / len(result["pages"])
        for result in results.values()
    }
    assert len(words) == 1  # what is no picture is the same question for all
    assert results["c.tif"]["pages"][1]["image_tokens"] != first["c.tif"]["image_tokens"]


# ----------------------------------------------------------------------------------------------------------- refusals


def test_bad_input_is_told_at_once(phi4mm: Phi4mm, tmp_path: Path) -> None:
    write_locked(tmp_path / "locked.pdf")
    (tmp_path / "bomb.ppm").write_bytes(b"P6 40000 40000 255\n")
    noise(60, 80).save(tmp_path / "song.mp3", "PNG")
    noise(1, 1).save(tmp_path / "dot.png")
    noise(20000, 30).save(tmp_path / "wide.png")
    noise(20, 10).save(tmp_path / "moving.gif", save_all=True, append_images=[noise(20, 10, seed=1)] * 3)
    Image.new("RGB", (9000, 2)).save(tmp_path / "thread.png")
    (tmp_path / "text.png").write_text("This is no picture.")
    (tmp_path / "web.pdf").write_text("<html>404</html>")
    names = sorted(path.name for path in tmp_path.iterdir())
    run = phi4mm("ocr", *names, "--jsonl", *ECHO)
    assert run.returncode == 3
    refused = {"bomb.ppm": "pixels", "locked.pdf": "password", "text.png": "not a picture", "thread.png": "too narrow"}
    refused["web.pdf"] = "or a PDF"
    errors = [line for line in run.stderr.splitlines() if "error" in line]
    assert len(errors) == len(refused)
    for name, words in refused.items():
        assert any(f"error: {name}: " in line and words in line for line in errors), run.stderr
    results = [result for result in map(json.loads, run.stdout.splitlines()) if result["task"] == "pages"]
    read = {result["source"]: result for result in results}
    assert set(read) == set(names) - set(refused)
    assert all(len(result["pages"]) == 1 and result["pages"][0]["bands"] == 1 for result in read.values())


def test_one_damaged_page_of_a_pdf(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["one"], ["two"], ["three"]])
    path.write_bytes(path.read_bytes().replace(b"7 0 obj\n<< /Type /Page ", b"7 0 obj\n<< /Type /Odd  "))
    found = pages_of(path, EchoEngine())
    assert [(page.page, bool(page.text)) for page in found.pages] == [(1, True), (2, False), (3, True)]
    assert [(warning.code, warning.page) for warning in found.warnings] == [("unreadable_page", 2)]
    assert (found.coverage.total, found.coverage.read) == (3, 2)
    with pytest.raises(InputError, match="page 2"):
        pages_of(path, EchoEngine(), Options(selection("2")))


# ----------------------------------------------------------------------------------------------------- long documents


def test_pages_do_not_pile_up_in_memory(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "long.pdf", [["line"] * 40] * 60)
    source, own = audio.source(path), psutil.Process()
    sizes = []
    for number in range(1, 61):
        assert np.asarray(document.read(Picture(source, number))).shape == (2339, 1654, 3)
        sizes.append(own.memory_info().rss)
    assert sizes[-1] - sizes[9] < 30e6  # a page has 12 MB


@pytest.mark.slow
def test_500_pages_through_a_model_take_the_memory_of_100(tmp_path: Path, tiny_folder: Path) -> None:
    peaks = []
    for count in (100, 500):
        write_texts(tmp_path / "long.pdf", [[f"Line {line}" for line in range(12)]] * count, points=(216, 288))
        arguments = ("--json", "-o", f"out{count}", "--max-new-tokens", "4", "--device", "cpu", "-q")
        command = [sys.executable, "-m", "phi4mm_cli", "ocr", "long.pdf", *arguments, "--model", str(tiny_folder)]
        run = subprocess.Popen(command, cwd=tmp_path)
        _, status, usage = os.wait4(run.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        written = json.loads((tmp_path / f"out{count}" / "long.json").read_text(encoding="utf-8"))
        assert [page["page"] for page in written["pages"]] == [*range(1, count + 1)]
        peaks.append(usage.ru_maxrss * 1024)
    assert peaks[1] - peaks[0] < 100e6, peaks


def test_a_long_document_can_be_stopped(tmp_path: Path) -> None:
    write_texts(tmp_path / "long.pdf", [["line"]] * 8000)
    noise(60, 80).save(tmp_path / "short.png")
    run = subprocess.Popen(
        [sys.executable, "-m", "phi4mm_cli", "ocr", "long.pdf", "short.png", "-o", "out", *ECHO],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    wait_for((tmp_path / "out" / "short.md").exists, run)
    stderr = stop_at_once(run, signal.SIGINT)
    assert run.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert [*outputs(tmp_path / "out")] == ["short.md"]
