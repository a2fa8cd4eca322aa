"""Shards that share a folder, what `status` says of it, and the report of a run."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from at_work import PATIENCE, begun, let_go, said_of_stopping, wait_for
from conftest import Phi4mm
from journalled import HereRun, lines, outputs, save, untimed
from jsonschema import Draft202012Validator
from PIL import Image
from scripted import said

from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.errors import RequestError
from phi4mm_cli.journal import FOLDER
from phi4mm_cli.journal.status import status
from phi4mm_cli.runs import Status, whole_json
from phi4mm_cli.schema import Request, Result
from phi4mm_cli.sharding import Shard

HEAR = ("transcribe", "in", "--no-vad", "-o")
NAMES = [f"{number:02}.wav" for number in range(12)]


@pytest.fixture(autouse=True)
def recordings(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(NAMES):
        save(tmp_path / "in" / name, number)


def fails(request: Request) -> Result | RequestError:
    if "03.wav" in request.clips[0].source.path:
        return RequestError("no memory", "Buy some")
    return Result("Cut", (1,), "length", 1) if "04.wav" in request.clips[0].source.path else said("All of it.")


def valid(found: Any) -> dict[str, Any]:
    Draft202012Validator(json_schema()).validate(found)
    return dict(found)


# ---------------------------------------------------------------------------------------------------------- shards


def test_shards_cover_every_input_once() -> None:
    names = [*NAMES, os.fsdecode(b"caf\xe9.wav"), "", *(f"deep/{number}/x.mp3" for number in range(3000))]
    for count in (1, 2, 7, 8):
        owners = [[shard for shard in range(1, count + 1) if Shard(shard, count).has(name)] for name in names]
        assert all(len(owner) == 1 for owner in owners)
        sizes = [sum(owner == [shard] for owner in owners) for shard in range(1, count + 1)]
        assert max(sizes) < 1.3 * min(sizes)
    # For good: another hash would share out again what machines of another version have begun.
    assert [name for name in "abcdefghijklm" if Shard(1, 8).has(name)] == ["l"]


def test_shards_together_are_one_run(phi4mm_here: HereRun, tmp_path: Path) -> None:
    whole = phi4mm_here(*HEAR, "whole", "--srt", "--json", engine=fails)
    asked = [phi4mm_here(*HEAR, "out", "--srt", "--json", "--shard", f"{n}/3", engine=fails).asked for n in (1, 2, 3)]
    assert sum(asked) == whole.asked
    assert untimed(outputs(tmp_path / "out")) == untimed(outputs(tmp_path / "whole"))
    journals = sorted(path.name for path in (tmp_path / "out" / FOLDER).glob("journal*"))
    assert journals == [f"journal-{n}-of-3.jsonl" for n in (1, 2, 3)]
    [parts], [one] = status(tmp_path / "out").commands, status(tmp_path / "whole").commands
    for name in ("inputs", "done", "failed", "begun", "left", "reasons", "warnings", "coverage"):
        assert getattr(parts, name) == getattr(one, name)
    assert [run.shard for run in parts.runs] == ["1/3", "2/3", "3/3"]
    again = phi4mm_here(*HEAR, "out", "--srt", "--json", engine=fails)  # not in parts: it knows what they have done
    assert (again.code, again.last) == (3, "12 inputs: 11 done before, 1 failed, 1 warning")
    assert phi4mm_here(*HEAR, "out", "--srt", "--json", "--shard", "1/5", engine=fails).asked <= 1


@pytest.mark.parametrize("wrong", ["0/8", "9/8", "3", "3/0", "a/b", "-1/8"])
def test_shards_that_are_none(phi4mm_here: HereRun, wrong: str) -> None:
    refused = phi4mm_here(*HEAR, "out", "--shard", wrong)
    assert refused.code == 2
    assert "--shard is like 3/8" in refused.stderr


def test_a_run_and_a_shard_do_not_share_a_folder(phi4mm_here: HereRun, tmp_path: Path) -> None:
    run = begun(tmp_path, *HEAR, "out", "--shard", "1/2", hold=0)
    try:
        wait_for((tmp_path / "out" / FOLDER / "journal-1-of-2.jsonl").exists, run)
        refused = phi4mm_here(*HEAR, "out")
        assert refused.code == 2
        assert f"transcribe, shard 1/2, process {run.pid} on " in refused.stderr
        assert phi4mm_here(*HEAR, "out", "--shard", "1/2").code == 2
        other = phi4mm_here(*HEAR, "out", "--shard", "2/2")
        assert (other.code, run.poll()) == (0, None)
        otherwise = phi4mm_here(*HEAR, "out", "--shard", "2/3")  # would share some of the inputs
        assert (otherwise.code, otherwise.asked) == (2, 0)
        assert "another run is at work on this folder: transcribe, shard " in otherwise.stderr
    finally:
        run.kill()
        run.wait()
    assert phi4mm_here(*HEAR, "out", "--shard", "2/3").code == 0


# ---------------------------------------------------------------------------------------------------------- status


def test_status_of_a_run_at_work_and_after_it_was_killed(phi4mm: Phi4mm, tmp_path: Path) -> None:
    save(tmp_path / "in" / "long.wav", 1, seconds=240)
    run = begun(tmp_path, *HEAR, "out", "--chunk-seconds", "1", hold=100)

    def has_begun() -> bool:
        journal = tmp_path / "out" / FOLDER / "journal.jsonl"
        return journal.exists() and sum(line["event"] == "done" for line in lines(tmp_path / "out")) >= 12

    wait_for(has_begun, run)
    at_work = status(tmp_path / "out")
    run.kill()
    run.wait()
    [found] = valid(whole_json(at_work))["commands"]
    assert (found["command"], found["state"], found["inputs"], found["done"]) == ("transcribe", "running", 13, 12)
    assert (found["begun"], found["left"]) == (1, 0)
    [shown] = found["runs"]
    assert (shown["pid"], shown["todo"], shown["over"]) == (run.pid, 13, 12)
    assert found["seconds_left"] > 0
    assert found["speed"] > 0
    said = phi4mm("status", "out").stdout.splitlines()
    assert said[0].startswith("transcribe: stopped at ")
    assert said[1] == "  13 inputs: 12 done, 1 begun"
    assert said[2].split(", in ")[0] == "  0:12 of 0:12 read"  # how long it took is told from a second on


@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
def test_a_run_that_was_stopped_says_so(tmp_path: Path) -> None:
    run = begun(tmp_path, *HEAR, "out", hold=2)
    wait_for(lambda: outputs(tmp_path / "out"), run)
    said_of_stopping(run, signal.SIGTERM)
    let_go(tmp_path)
    run.communicate(timeout=PATIENCE)
    [found] = status(tmp_path / "out").commands
    assert (run.returncode, found.state, found.runs[0].exit_code) == (143, "ended", 143)
    assert 2 < found.done < 12


def test_status_of_several_commands(phi4mm_here: HereRun, phi4mm: Phi4mm, tmp_path: Path) -> None:
    phi4mm_here(*HEAR, "out", engine=fails)
    phi4mm_here("translate", "in", "--no-vad", "--to", "fr", "-o", "out", engine=lambda _: said("Tout."))
    found = status(tmp_path / "out")
    valid(whole_json(found))
    assert [one.command for one in found.commands] == ["translate fr", "transcribe"]
    told = phi4mm("status", "out")
    assert told.returncode == 0
    assert "  12 inputs: 11 done, 1 failed\n" in told.stdout
    assert "  1 failed: no memory (03.wav)\n" in told.stdout
    assert "  warnings: 1 token_limit\n" in told.stdout


def test_status_where_there_is_none(phi4mm: Phi4mm) -> None:
    run = phi4mm("status", "in")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "phi4mm: error: there is no journal in in. Name a folder that a run was given with -o\n"
    assert "there is no folder nowhere" in phi4mm("status", "nowhere").stderr


def test_status_of_names_that_are_not_utf8(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "in" / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"no recording")
    phi4mm_here(*HEAR, "out", engine=lambda _: said("All."))
    [reason] = status(tmp_path / "out").commands[0].reasons
    assert reason.inputs == ("caf\ufffd.wav",)


# ---------------------------------------------------------------------------------------------------------- report


def test_the_report_of_a_run(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "in" / "none.wav").touch()
    hear = (*HEAR, "out", "--report", "report.json")
    assert phi4mm_here(*hear, engine=fails).code == 3
    report = valid(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    counts = [report[name] for name in ("inputs", "done", "done_before", "failed", "calls", "replayed", "exit_code")]
    assert counts == [13, 11, 0, 2, report["calls"], 0, 3]
    assert report["calls"] >= 11
    assert {reason["message"]: reason["inputs"] for reason in report["reasons"]} == {
        "no memory": ["in/03.wav"],
        "the file is empty (0 bytes)": ["in/none.wav"],
    }
    assert [failure["error"]["type"] for failure in report["failures"]] == ["InputError", "RequestError"]
    assert report["warnings"] == {"token_limit": 1}
    assert report["coverage"] == [{"unit": "seconds", "total": 11.0, "read": 11.0}]
    assert report["speed"]["seconds"] == pytest.approx(11 / report["seconds"], rel=0.02)
    assert report["model"]["id"] == "echo"
    assert phi4mm_here(*hear, engine=fails).code == 3
    again = valid(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    assert (again["done"], again["done_before"], again["failed"]) == (0, 11, 2)
    assert (again["warnings"], again["coverage"]) == (report["warnings"], report["coverage"])
    assert again["speed"] == {}


def test_a_report_on_stdout(phi4mm: Phi4mm) -> None:
    run = phi4mm(*HEAR, "out", "--report", "-", "--engine", "echo", "-q")
    assert valid(json.loads(run.stdout))["done"] == 12
    refused = phi4mm("transcribe", "in/00.wav", "--report", "-", "--engine", "echo")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_a_run_that_breaks_off_reports_too(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "in" / "none.wav").touch()
    gone = ("--engine", "openai", "--url", "http://127.0.0.1:9/v1")
    run = phi4mm(*HEAR, "out", "--report", "report.json", *gone)
    assert (run.returncode, "cannot be reached" in run.stderr) == (5, True)
    report = valid(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    assert (report["inputs"], report["done"], report["failed"], report["exit_code"]) == (1, 0, 1, 5)


def test_a_run_that_a_bug_ends_reports_too_and_says_so_in_its_journal(phi4mm_here: HereRun, tmp_path: Path) -> None:
    asked: list[Request] = []

    def breaks(request: Request) -> Result:
        asked.append(request)
        assert len(asked) < 3, "nobody has thought of it"
        return said("a")

    with pytest.raises(AssertionError, match="nobody has thought of it"):
        phi4mm_here(*HEAR, "out", "--report", "report.json", engine=breaks)
    report = valid(json.loads((tmp_path / "report.json").read_text(encoding="utf-8")))
    assert (report["exit_code"], report["done"] + report["failed"] < 12) == (1, True)
    assert lines(tmp_path / "out")[-1]["event"] == "end"
    assert lines(tmp_path / "out")[-1]["code"] == 1
    assert phi4mm_here(*HEAR, "out").code == 0


def test_a_report_that_could_not_be_written_is_refused_first(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    for place in ("reports", "in/00.wav/report.json"):
        refused = phi4mm_here(*HEAR, "out", "--report", place)
        assert (refused.code, refused.asked, (tmp_path / "out").exists()) == (2, 0, False)
        assert refused.stderr.endswith(("Name a file\n", "Name another file\n"))


def test_an_empty_status_is_valid() -> None:
    valid(whole_json(Status("out", ())))


# -------------------------------------------------------------------------------------------------------- no room


@pytest.mark.skipif(sys.platform == "win32", reason="limits of Unix")
def test_a_journal_that_cannot_grow_ends_the_run_and_loses_nothing(phi4mm: Phi4mm, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6500, 6500))

    for name in NAMES:
        Image.new("RGB", (60, 60), "white").save((tmp_path / "in" / name).with_suffix(".png"))
    read = ("ocr", "in", "--engine", "echo", "-o")
    run = phi4mm(*read, "out", preexec_fn=limited)
    assert run.returncode == 1
    assert run.stderr.endswith(
        "phi4mm: error: cannot write out/.phi4mm: File too large. "
        "Put that right and run the same command again: it goes on where it was\n"
    )
    done = len(outputs(tmp_path / "out"))
    assert 0 < done < 12
    again = phi4mm(*read, "out")
    assert again.returncode == 0
    assert int(again.stderr.split(" done before")[0].split()[-1]) in (done, done - 1)  # the last line may be torn
    phi4mm(*read, "whole")
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_full_disk_for_temporary_files_ends_the_run_and_loses_nothing(phi4mm: Phi4mm, tmp_path: Path) -> None:
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # far less than what tells languages takes

    run = phi4mm(*HEAR, "out", "--engine", "echo", preexec_fn=limited)
    assert (run.returncode, "Traceback" in run.stderr) == (1, False)
    assert run.stderr.splitlines()[-1].endswith("File too large. Free some space, or set TMPDIR to another folder")
    assert phi4mm(*HEAR, "out", "--engine", "echo").returncode == 0
    assert outputs(tmp_path / "out").keys() == {f"{number:02}.txt" for number in range(12)}
