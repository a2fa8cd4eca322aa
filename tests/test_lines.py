"""`--jsonl -o FILE`: a line for each input in one file, however often and wherever the run was ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from conftest import Phi4mm
from journalled import HereRun, save
from scripted import said

from phi4mm_cli.errors import RequestError
from phi4mm_cli.journal import FOLDER
from phi4mm_cli.schema import Request, Result

HEAR = ("transcribe", "in", "--no-vad", "--jsonl", "-o", "out/all.jsonl")


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        save(tmp_path / "in" / f"{number}.wav", number)


def fails(request: Request) -> Result | RequestError:
    return RequestError("too hard") if "2.wav" in request.clips[0].source.path else said("A sentence.")


def lines(folder: Path) -> dict[str, dict[str, Any]]:
    """By the inputs, of which none is there twice."""
    found = [json.loads(line) for line in (folder / "out" / "all.jsonl").read_text(encoding="utf-8").splitlines()]
    by_source = {line["source"]: line for line in found}
    assert len(by_source) == len(found)
    return by_source


def test_a_file_has_one_line_an_input(phi4mm_here: HereRun, phi4mm: Phi4mm, tmp_path: Path) -> None:
    first = phi4mm_here(*HEAR, "none.wav", engine=fails)
    told = phi4mm("status", "out/all.jsonl").stdout
    assert "5 inputs: 3 done, 2 failed" in told
    assert told == phi4mm("status", "out").stdout
    assert (first.code, first.last) == (3, "5 inputs: 3 done, 2 failed")
    assert {source: line["task"] for source, line in lines(tmp_path).items()} == {
        "in/0.wav": "transcript", "in/1.wav": "transcript", "in/3.wav": "transcript",
        "in/2.wav": "failure", "none.wav": "failure",
    }  # fmt: skip
    save(tmp_path / "in" / "0.wav", 9)  # another recording
    again = phi4mm_here(*HEAR, "none.wav", engine=lambda _: said("Anew."))
    assert (again.code, again.last, again.asked) == (3, "5 inputs: 2 done, 2 done before, 1 failed", 2)
    texts = {source: line.get("text") for source, line in lines(tmp_path).items()}
    assert texts == {
        "in/0.wav": "Anew.", "in/1.wav": "A sentence.", "in/2.wav": "Anew.", "in/3.wav": "A sentence.",
        "none.wav": None,
    }  # fmt: skip


def test_lines_that_are_lost_are_written_again_without_the_model(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR)
    before, path = lines(tmp_path), tmp_path / "out" / "all.jsonl"
    path.write_bytes(path.read_bytes()[:-40])  # the last one is torn
    again = phi4mm_here(*HEAR)
    assert (again.code, again.last, again.asked) == (0, "4 inputs: 1 done, 3 done before", 0)
    assert lines(tmp_path) == before
    path.unlink()
    assert phi4mm_here(*HEAR).asked == 0
    assert lines(tmp_path) == before
    assert phi4mm_here(*HEAR, "--force").asked == 4
    assert len(lines(tmp_path)) == 4


def test_two_inputs_of_one_name_have_a_line_each(phi4mm_here: HereRun, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "talk.wav", 1)
    run = phi4mm_here("transcribe", "a/talk.wav", "b/talk.wav", *HEAR[2:])
    assert (run.code, run.last) == (0, "2 inputs: 2 done")
    assert {source: line["task"] for source, line in lines(tmp_path).items()} == {
        "a/talk.wav": "transcript", "b/talk.wav": "transcript",
    }  # fmt: skip


@contextmanager
def on_stdin(text: str) -> Iterator[None]:
    """What the program reads from there in this process."""
    with TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        kept = os.dup(0)
        os.dup2(file.fileno(), 0)
        try:
            yield
        finally:
            os.dup2(kept, 0)
            os.close(kept)


def test_named_one_by_one_each_has_one_line_too(phi4mm_here: HereRun, tmp_path: Path) -> None:
    path, journal = tmp_path / "out" / "all.jsonl", tmp_path / "out" / FOLDER / "journal.jsonl"
    named = "in/0.wav\nnone.wav\nin/1.wav\n"

    def run(names: str) -> str:
        with on_stdin(names):
            return phi4mm_here("transcribe", "--files-from", "-", *HEAR[2:]).last

    assert run(named) == "3 inputs: 2 done, 1 failed"
    before = lines(tmp_path)
    assert before.keys() == {"in/0.wav", "none.wav", "in/1.wav"}
    with path.open("ab") as file:
        file.write(b'{"source": "in/2.wav", "ta')  # killed in the middle of a line
    assert run("in/0.wav\n") == "1 input: 1 done before"
    assert lines(tmp_path) == before
    noted = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(line for line in noted if b'"done"' not in line))  # ... and between line and journal
    assert run(named) == "3 inputs: 2 done, 1 failed"
    assert lines(tmp_path) == before


def test_bytes_that_are_no_text_spoil_no_line(phi4mm_here: HereRun, tmp_path: Path) -> None:
    run = phi4mm_here(*HEAR, "--hotwords", "caf\udce9")  # as an argument that is not UTF-8 comes in
    assert (run.code, run.last) == (0, "4 inputs: 4 done")
    assert {line["options"]["hotwords"] for line in lines(tmp_path).values()} == {"caf?"}


def test_what_is_no_such_file_is_not_written_to(phi4mm_here: HereRun, tmp_path: Path) -> None:
    sound = (tmp_path / "in" / "0.wav").read_bytes()
    refused = phi4mm_here("transcribe", "in", "--jsonl", "-o", "in/0.wav")
    assert (refused.code, refused.asked) == (2, 0)
    assert "holds something else than lines of --jsonl" in refused.stderr
    assert (tmp_path / "in" / "0.wav").read_bytes() == sound
    assert "is a folder" in phi4mm_here("transcribe", "in", "--jsonl", "-o", "in").stderr
    assert phi4mm_here(*HEAR, "--srt").code == 2
    phi4mm_here(*HEAR)
    save(tmp_path / "in" / "0.wav", 9)
    refused = phi4mm_here(*HEAR, "--no-overwrite")
    assert (refused.code, refused.asked) == (2, 0)
    assert "there is a line of in/0.wav already" in refused.stderr


def test_what_would_be_done_is_told_and_nothing_is_made(phi4mm_here: HereRun, tmp_path: Path) -> None:
    told = phi4mm_here(*HEAR, "--dry-run")
    assert (told.code, told.stderr.split(";")[0]) == (0, "phi4mm: 4 to do")
    assert not (tmp_path / "out").exists()
    phi4mm_here(*HEAR)
    assert phi4mm_here(*HEAR, "--dry-run").last == "4 done before"
