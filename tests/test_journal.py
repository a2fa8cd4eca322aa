"""The same command again, on the same output folder: what is done is left alone, what is not is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
from journalled import HereRun, lines, outputs, save
from PIL import Image
from scripted import said

from phi4mm_cli import writers
from phi4mm_cli.engine_options import EngineName, EngineOptions
from phi4mm_cli.errors import RequestError
from phi4mm_cli.journal import FOLDER, states
from phi4mm_cli.journal.records import file_name
from phi4mm_cli.journal.results import Results
from phi4mm_cli.outputs import Document
from phi4mm_cli.schema import Request, Result


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path) -> None:
    for number, name in enumerate(("a.wav", "b.wav", "deep/c.flac")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / "in" / name, number)


HEAR = ("transcribe", "in", "-o", "out", "--no-vad")


# ---------------------------------------------------------------------------------------------- what is left out


def test_what_is_done_is_not_done_again(phi4mm_here: HereRun, tmp_path: Path) -> None:
    first = phi4mm_here(*HEAR, "--srt")
    assert (first.code, first.last, first.asked) == (0, "3 inputs: 3 done", 3)
    before = outputs(tmp_path / "out")
    again = phi4mm_here(*HEAR, "--srt")
    assert (again.code, again.last, again.asked) == (0, "3 inputs: 3 done before", 0)
    assert outputs(tmp_path / "out") == before
    forced = phi4mm_here(*HEAR, "--srt", "--force")
    assert (forced.last, forced.asked) == ("3 inputs: 3 done", 3)


def test_only_what_is_new_changed_or_failed_is_done(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF" + bytes(100))

    def fails(request: Request) -> Result | RequestError:
        return RequestError("too hard") if "b.wav" in request.clips[0].source.path else said("A sentence.")

    first = phi4mm_here(*HEAR, engine=fails)
    assert (first.code, first.last) == (3, "4 inputs: 2 done, 2 failed")
    again = phi4mm_here(*HEAR, engine=fails)
    assert (again.code, again.last, again.asked) == (3, "4 inputs: 2 done before, 2 failed", 1)
    save(tmp_path / "in" / "broken.wav", 7)
    save(tmp_path / "in" / "a.wav", 8)
    save(tmp_path / "in" / "new.wav", 9)
    os.utime(tmp_path / "in" / "deep" / "c.flac", (1, 1))  # as of a copy; its content is the same
    third = phi4mm_here(*HEAR)
    assert (third.code, third.last, third.asked) == (0, "5 inputs: 4 done, 1 done before", 4)
    found = states.read(tmp_path / "out").of
    assert {key[1]: (state.kind, state.attempt) for key, state in found.items()} == {
        "a.wav": ("done", 1),  # another one than was done first
        "b.wav": ("done", 3),
        "broken.wav": ("done", 1),
        "deep/c.flac": ("done", 1),
        "new.wav": ("done", 1),
    }
    errors = [line["error"]["message"] for line in lines(tmp_path / "out") if line["event"] == "failed"]
    assert errors.count("too hard") == 2


def test_other_options_for_the_result_do_it_again(phi4mm_here: HereRun) -> None:
    phi4mm_here(*HEAR)
    assert phi4mm_here(*HEAR, "-l", "de").asked == 3
    assert phi4mm_here(*HEAR, "-l", "de", "--temperature", "0.5").asked == 3
    assert phi4mm_here(*HEAR, "-l", "de", "--temperature", "0.5", "--chunk-seconds", "20").asked == 3
    assert phi4mm_here(*HEAR, "--model", "other").asked == 3
    assert phi4mm_here(*HEAR, "--model", "other", "--batch-size", "3", "--device", "cpu").asked == 0


def test_other_options_for_the_writing_need_no_model(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR, "--json")
    expected = {**outputs(tmp_path / "out")}
    (tmp_path / "out" / "a.json").unlink()
    lost = phi4mm_here(*HEAR, "--json")
    assert (lost.last, lost.asked) == ("3 inputs: 1 done, 2 done before", 0)
    assert outputs(tmp_path / "out") == expected
    more = phi4mm_here(*HEAR, "--json", "--srt", "--vtt", "--word-timestamps")
    assert (more.last, more.asked) == ("3 inputs: 3 done", 0)
    phi4mm_here(*HEAR[:3], "other", "--json", "--srt", "--vtt", "--word-timestamps", "--no-vad")
    for name, content in outputs(tmp_path / "other").items():
        if not name.endswith(".json"):  # which tells how long it took
            assert outputs(tmp_path / "out")[name] == content
    assert json.loads(outputs(tmp_path / "out")["a.json"])["segments"][0]["words"]


def test_an_output_that_was_edited_stays_until_there_is_a_new_result(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR, "--srt")
    edited = tmp_path / "out" / "a.srt"
    edited.write_text("mine", encoding="utf-8")
    for options in (["--srt", "--json"], ["--srt", "--captions", "bbc"], ["--srt", "--vtt"]):
        run = phi4mm_here(*HEAR, *options)
        assert (run.last, run.asked) == ("3 inputs: 3 done", 0)
        assert edited.read_text(encoding="utf-8") == "mine"
        assert "out/a.srt has been edited; it stays as it is" in run.stderr
        assert "b.srt" not in run.stderr
    assert {"a.json", "a.vtt", "b.json", "b.vtt"} <= outputs(tmp_path / "out").keys()
    (tmp_path / "out" / "a.tsv").mkdir()
    assert phi4mm_here(*HEAR, "--srt", "--tsv").code == 3
    (tmp_path / "out" / "a.tsv").rmdir()
    phi4mm_here(*HEAR, "--srt", "--tsv")
    assert edited.read_text(encoding="utf-8") == "mine"
    edited.unlink()
    phi4mm_here(*HEAR, "--srt", "--json")
    assert edited.read_text(encoding="utf-8").startswith("1\n")
    edited.write_text("mine", encoding="utf-8")
    phi4mm_here(*HEAR, "--srt", "--json", "--force")
    assert edited.read_text(encoding="utf-8").startswith("1\n")


def test_a_copy_of_an_output_is_no_edit(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR, "--srt")
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copy)
    for path in (tmp_path / "copy").glob("*.srt"):
        os.utime(path, (1000, 1000))
    run = phi4mm_here(*HEAR[:3], "copy", "--srt", "--captions", "plain", "--no-vad")
    assert "edited" not in run.stderr
    assert all(path.stat().st_mtime > 1000 for path in (tmp_path / "copy").glob("*.srt"))  # they are written anew


def test_no_overwrite_holds_after_a_failure(phi4mm_here: HereRun, tmp_path: Path) -> None:
    good = (tmp_path / "in" / "a.wav").read_bytes()
    (tmp_path / "in" / "a.wav").write_bytes(b"RIFF" + bytes(100))
    assert phi4mm_here(*HEAR, "--srt").code == 3
    (tmp_path / "out" / "a.srt").write_text("mine", encoding="utf-8")
    (tmp_path / "in" / "a.wav").write_bytes(good)
    for _ in range(2):
        assert phi4mm_here(*HEAR, "--srt", "--no-overwrite").code == 2
        assert (tmp_path / "out" / "a.srt").read_text(encoding="utf-8") == "mine"


def test_captions_of_what_was_written_as_text_need_no_model(phi4mm_here: HereRun) -> None:
    assert phi4mm_here(*HEAR, "--txt").asked == 3
    assert phi4mm_here(*HEAR, "--srt").asked == 0
    assert phi4mm_here(*HEAR, "--txt").asked == 0


def test_commands_and_tags_share_a_folder(phi4mm_here: HereRun, tmp_path: Path) -> None:
    translate = ("translate", "in", "-o", "out", "--no-vad", "--to")
    assert phi4mm_here(*HEAR, "--json").asked == 3
    assert phi4mm_here(*translate, "fr").asked >= 3
    assert phi4mm_here(*translate, "de").asked >= 3
    assert phi4mm_here(*translate, "fr").asked == 0
    assert phi4mm_here(*HEAR, "--json").asked == 0
    (tmp_path / "in" / "a.md").write_text("# A", encoding="utf-8")
    phi4mm_here("summarize", "in/a.md", "-o", "out", "--json")
    assert phi4mm_here("summarize", "in/a.md", "-o", "out", "--json").last == "1 input: 1 done before"


def test_an_output_that_another_command_took_is_written_again(phi4mm_here: HereRun, tmp_path: Path) -> None:
    Image.effect_noise((60, 60), 90).save(tmp_path / "a.png")
    alone = ("transcribe", "in/a.wav", "-o", "out", "--json", "--no-vad")
    phi4mm_here(*alone)
    first = outputs(tmp_path / "out")
    phi4mm_here("ocr", "a.png", "-o", "out", "--json", engine=lambda _: said("A page."))
    assert outputs(tmp_path / "out") != first
    assert phi4mm_here(*alone).asked == 0
    assert outputs(tmp_path / "out") == first


def test_several_together_are_done_once(phi4mm_here: HereRun, tmp_path: Path) -> None:
    for name in ("mon", "tue"):
        (tmp_path / f"{name}.txt").write_text(f"What was said on {name}.", encoding="utf-8")
    together = ("summarize", "mon.txt", "tue.txt", "--together", "-o", "out", "--md")
    assert phi4mm_here(*together, engine=lambda _: said("All.")).asked == 1
    assert phi4mm_here(*together).asked == 0
    (tmp_path / "tue.txt").write_text("What was said on Tuesday.", encoding="utf-8")
    assert phi4mm_here(*together, engine=lambda _: said("All.")).asked == 1


# ----------------------------------------------------------------------------------------- where there is none


def test_without_an_output_folder_nothing_is_remembered(phi4mm_here: HereRun, tmp_path: Path) -> None:
    for _ in range(2):
        assert phi4mm_here("transcribe", "in", "--no-vad", "--srt").asked == 3
    Image.effect_noise((60, 60), 90).save(tmp_path / "page.png")
    phi4mm_here("ocr", "page.png", "--table", "csv", engine=lambda _: said("| a |\n|---|\n| b |"))
    assert (tmp_path / "page.table1.csv").exists()
    assert not (tmp_path / FOLDER).exists()


def test_outputs_without_a_journal_are_replaced_or_refused(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("mine", encoding="utf-8")
    refused = phi4mm_here(*HEAR, "--no-overwrite")
    assert (refused.code, refused.asked) == (2, 0)
    assert "a.txt exists" in refused.stderr
    assert phi4mm_here(*HEAR).code == 0
    assert (tmp_path / "out" / "a.txt").read_text(encoding="utf-8") == "Sentence at 0.\n"


def test_no_overwrite_goes_on_from_a_journal(phi4mm_here: HereRun, tmp_path: Path) -> None:
    def stopped(request: Request) -> Result | RequestError:
        raise KeyboardInterrupt

    assert phi4mm_here(*HEAR, "--no-overwrite", engine=stopped).code == 130
    (tmp_path / "out" / "a.txt").write_text("written just before the end", encoding="utf-8")
    save(tmp_path / "in" / "new.wav", 9)
    again = phi4mm_here(*HEAR, "--no-overwrite")
    assert (again.code, again.last) == (0, "4 inputs: 4 done")
    assert phi4mm_here(*HEAR, "--no-overwrite").last == "4 inputs: 4 done before"
    assert phi4mm_here(*HEAR, "--no-overwrite", "--force").code == 2


def test_warnings_of_what_is_done_still_count(phi4mm_here: HereRun) -> None:
    def empty(request: Request) -> Result | RequestError:
        return Result("Cut", (1,), "length", 1)

    strict = (*HEAR, "--strict", "--max-new-tokens", "1")
    assert phi4mm_here(*strict, engine=empty).code == 7
    again = phi4mm_here(*strict, engine=empty)
    assert (again.code, again.asked) == (7, 0)


# --------------------------------------------------------------------------------------------------- damage


def test_a_torn_line_loses_itself_only(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR)
    journal = tmp_path / "out" / FOLDER / "journal.jsonl"
    whole = journal.read_bytes().splitlines(keepends=True)
    last_done = max(number for number, line in enumerate(whole) if b'"done"' in line)
    journal.write_bytes(b"".join(whole[:last_done]) + whole[last_done][:40])
    again = phi4mm_here(*HEAR)
    assert (again.code, again.last, again.asked) == (0, "3 inputs: 1 done, 2 done before", 0)  # from its result
    assert phi4mm_here(*HEAR).last == "3 inputs: 3 done before"
    for damage in (b"\xff\xfe\x00\n", b"[1, 2]\n", b'{"event": "done"}\n', b'{"event": "done", "at": [], "name": 3'):
        journal.write_bytes(journal.read_bytes() + damage)
    assert phi4mm_here(*HEAR).last == "3 inputs: 3 done before"


def test_a_bug_in_writing_one_result_is_its_own_failure(
    phi4mm_here: HereRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(document: Document, file: TextIO) -> None:
        writers.write_text(document, file)
        assert document.source != "in/b.wav", "nobody has thought of it"

    with monkeypatch.context() as patch:
        patch.setitem(writers._OTHERS, "txt", breaks)
        run = phi4mm_here(*HEAR)
    assert (run.code, run.last, run.asked) == (3, "3 inputs: 2 done, 1 failed", 3)
    assert "error: in/b.wav: unexpected AssertionError: nobody has thought of it" in run.stderr
    assert outputs(tmp_path / "out").keys() == {"a.txt", "deep/c.txt"}
    again = phi4mm_here(*HEAR)
    assert (again.code, again.last, again.asked) == (0, "3 inputs: 1 done, 2 done before", 0)


def test_a_damaged_result_is_made_again(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR)
    kept = tmp_path / "out" / FOLDER / "results.jsonl"
    first, second, third = kept.read_bytes().splitlines(keepends=True)
    kept.write_bytes(first[:-50] + b"\n\n" + second + third[:-50])
    again = phi4mm_here(*HEAR, "--txt", "--captions", "bbc")
    assert (again.code, again.last, again.asked) == (0, "3 inputs: 3 done", 2)
    assert phi4mm_here(*HEAR, "--txt", "--captions", "netflix").asked == 0


def test_a_long_result_is_damaged_alone(phi4mm_here: HereRun, tmp_path: Path) -> None:
    def hears(length: int) -> Callable[[Request], Result]:
        return lambda _: said("Some words that nobody says. " * length)

    for length in (1, 400, 1, 400):  # short ones and long ones take each other's place
        assert phi4mm_here(*HEAR, "--force", engine=hears(length)).asked >= 3
        assert phi4mm_here(*HEAR, "--txt", "--captions", "bbc").asked == 0
        assert len((tmp_path / "out" / "a.txt").read_text(encoding="utf-8").split()) >= 5 * length
    kept = sorted((tmp_path / "out" / FOLDER / "results").iterdir())
    assert len(kept) == 3
    kept[0].write_bytes(kept[0].read_bytes()[:-50])
    kept[1].write_bytes(b"")
    assert phi4mm_here(*HEAR, "--txt", "--captions", "netflix").asked == 2


def test_a_journal_of_a_later_version_is_left_alone(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR)
    journal = tmp_path / "out" / FOLDER / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"event": "run", "layout": 9, "version": "7.0.0"}\n')
    run = phi4mm_here(*HEAR)
    assert run.code == 2
    assert "another version of phi4mm, 7.0.0" in run.stderr


def test_any_name_is_found_again(phi4mm_here: HereRun, tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.wav"), os.fsdecode(b"caf\xe8.wav"), "line\nbreak.wav", "x" * 247 + ".wav", "🎙.wav"]
    for name in names:
        (tmp_path / "in" / name).write_bytes((tmp_path / "in" / "a.wav").read_bytes())
    assert phi4mm_here(*HEAR).asked == 8
    assert phi4mm_here(*HEAR).last == "8 inputs: 8 done before"


def test_names_that_are_too_long_are_told_before_the_model_is_asked(phi4mm_here: HereRun, tmp_path: Path) -> None:
    save(tmp_path / "in" / ("x" * 251 + ".wav"), 1)
    assert phi4mm_here(*HEAR).last == "4 inputs: 4 done"  # .txt is no longer
    for force, asked in (("--no-force", 0), ("--force", 3)):
        longer = phi4mm_here(*HEAR, "--json", "--srt", force)
        assert (longer.code, longer.asked) == (3, asked)
        assert longer.last == "4 inputs: 3 done, 1 failed"
        assert "the name of its output .json would have 256 bytes, and 255 are the most there" in longer.stderr
    assert "1 not possible" in phi4mm_here(*HEAR, "--json", "--dry-run").stderr


def test_a_run_may_go_on_with_another_engine_that_computes_the_same() -> None:
    names = (EngineName.LOCAL, EngineName.RAY, EngineName.OPENAI)
    here, cluster, server = (EngineOptions(engine=name).deciding() for name in names)
    assert here == cluster != server


def test_a_result_comes_back_as_it_was(phi4mm_here: HereRun, tmp_path: Path) -> None:
    phi4mm_here(*HEAR, "--srt")
    pile = tmp_path / "out" / FOLDER / "results.jsonl"
    first, *_ = pile.read_bytes().splitlines()
    past = states.read(tmp_path / "out").of
    key = next(key for key in past if file_name(key) == json.loads(first)["of"])
    kept = Results(pile.with_name("results"))
    found = kept.kept(key, past[key].task)
    assert found is not None
    assert found[1].body.segments[0].words  # type: ignore[union-attr]
    kept.keep(key, past[key].task, found[0], found[1])
    kept.close()
    assert pile.read_bytes().splitlines()[-1] == first


# --------------------------------------------------------------------------------------------------- two runs


def test_two_runs_do_not_share_a_folder(phi4mm_here: HereRun, tmp_path: Path) -> None:
    waits = "import sys, time\nfrom phi4mm_cli.journal import lock\nfrom pathlib import Path\n"
    waits += "with lock.held(Path(sys.argv[1]), 'transcribe'):\n    print('held', flush=True)\n    time.sleep(1000)"
    (tmp_path / "out" / FOLDER).mkdir(parents=True)
    arguments = [sys.executable, "-c", waits, str(tmp_path / "out" / FOLDER / "lock")]
    other = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        refused = phi4mm_here(*HEAR)
        assert refused.code == 2
        year = time.strftime("%Y")
        assert f"another run is at work on this folder: transcribe, process {other.pid} on " in refused.stderr
        assert f", since {year}-" in refused.stderr
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    assert phi4mm_here(*HEAR).code == 0  # a dead owner holds nothing
