"""`--dry-run` says what would be done, and does nothing."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import soundfile
from conftest import Phi4mm
from documents import noise, write_scans
from films import shade, write_film
from recordings import tone
from safetensors import safe_open

from phi4mm_cli.model.checkpoint import resolve

ECHO = ("--engine", "echo", "--no-vad")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, seconds in (("a/talk.wav", 2.0), ("b/talk.wav", 3.0), ("other.wav", 61.0)):
        Path(name).parent.mkdir(exist_ok=True)
        soundfile.write(name, tone(16000, seconds), 16000)


def told(stdout: str) -> list[list[str]]:
    return [line.split("\t") for line in stdout.splitlines()]


def test_what_would_be_done_is_what_is_done(phi4mm: Phi4mm) -> None:
    arguments = ("transcribe", "a", "other.wav", "none.wav", "-o", "out", "-f", "srt,json", *ECHO)
    before = sorted(map(str, Path().rglob("*")))
    run = phi4mm(*arguments, "--dry-run")
    assert told(run.stdout) == [
        ["a/talk.wav", "0:02", "out/talk.json, out/talk.srt"],
        ["other.wav", "1:01", "out/other.json, out/other.srt"],
        ["none.wav", "", "error: there is no such file. Check its name and its folder."],
    ]
    assert run.stderr.splitlines()[0] == "phi4mm: 2 to do, 1 not possible; 1:03 in all"
    assert run.returncode == 3
    assert sorted(map(str, Path().rglob("*"))) == before
    assert phi4mm(*arguments).returncode == 3
    written = sorted(str(path) for path in Path("out").glob("*.*") if not path.name.startswith("."))
    assert written == sorted(", ".join(line[2] for line in told(run.stdout)[:2]).split(", "))
    again = phi4mm(*arguments, "--dry-run")
    assert [line[1:] for line in told(again.stdout)[:2]] == [["", "done before"]] * 2


def test_every_clash_is_told(phi4mm: Phi4mm) -> None:
    Path("talk.txt").write_text("mine", encoding="utf-8")
    run = phi4mm("transcribe", "a/talk.wav", "b/talk.wav", "other.wav", "--no-overwrite", "-n", *ECHO)
    assert run.returncode == 2
    reasons = [line[2] for line in told(run.stdout)]
    assert "talk.txt exists" in reasons[0]
    assert "would both write talk.txt" in reasons[1]
    assert reasons[2] == "other.txt"


def test_what_is_heard_of_recordings(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "a", "other.wav", "--range", "0:01-0:02.5,0:50-", "-n", *ECHO, "-o", "out")
    assert [line[1:] for line in told(run.stdout)] == [
        ["", "error: it ends at 0:02.0, before the range begins. Give another --range."],
        ["0:12", "out/other.txt"],
    ]
    assert run.stderr.splitlines()[:2] == [
        "phi4mm: 1 to do, 1 not possible; 0:12 in all",
        "phi4mm: up to 1 outputs in out",
    ]
    assert "no channel 2" in phi4mm("transcribe", "other.wav", "--channel", "2", "-n", *ECHO).stdout


def test_pages_and_models(phi4mm: Phi4mm) -> None:
    write_scans(Path("scan.pdf"), [noise(64, 64)] * 3)
    run = phi4mm("ocr", "scan.pdf", "-n", "--model", "demo")
    assert told(run.stdout) == [["scan.pdf", "3 pages", "to stdout"]]
    assert run.stderr.splitlines()[0] == "phi4mm: 1 to do; 3 pages in all"
    count = 0
    for path in resolve("demo").path.rglob("*.safetensors"):
        with safe_open(path, "numpy") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    takes = f"takes {4 * count / 1e6:.1f} MB of memory in float32, and"
    assert f"the model demo {takes}" in run.stderr
    shutil.copytree(resolve("demo").path, "copy")
    shutil.copytree("copy/speech-lora", "copy/checkpoint-1")  # what a training has left is not loaded
    assert takes in phi4mm("ocr", "scan.pdf", "-n", "--model", "./copy").stderr
    adapted = phi4mm("ocr", "scan.pdf", "-n", "--model", "demo", "--adapter", "speech=copy/checkpoint-1")
    assert takes in adapted.stderr  # in place of its own
    missing = phi4mm("ocr", "scan.pdf", "-n")
    assert (missing.returncode, "is not on this machine yet" in missing.stderr) == (0, True)


def test_pages_that_are_chosen_and_pictures(phi4mm: Phi4mm) -> None:
    write_scans(Path("ten.pdf"), [noise(64, 64)] * 10)
    noise(64, 64).save("photo.png")
    write_film(Path("clip.mp4"), [shade(90)] * 20)
    echo = ("--engine", "echo", "-n")
    assert told(phi4mm("ocr", "ten.pdf", "--pages", "2-4", *echo).stdout) == [["ten.pdf", "3 pages", "to stdout"]]
    for dry in ((), ("-n",)):
        none = phi4mm("ocr", "ten.pdf", "--pages", "50", "--engine", "echo", *dry)
        assert (none.returncode, "there is no page 50" in none.stdout + none.stderr) == (4, True)
    both = phi4mm("describe", "photo.png", "ten.pdf", *echo)
    assert [line[1] for line in told(both.stdout)] == ["11 pages"]
    each = phi4mm("describe", "photo.png", "clip.mp4", "--each", *echo)
    assert [line[1] for line in told(each.stdout)] == ["1 page", "1 page"]
    assert told(phi4mm("summarize", "clip.mp4", "--frames", "2", *echo).stdout)[0][1] == "1 page"


def test_the_names_on_stdin_are_all_read(phi4mm: Phi4mm) -> None:
    run = phi4mm("transcribe", "--files-from", "-", "-n", "-o", "out", *ECHO, input="a/talk.wav\nb/talk.wav\n")
    assert [line[2] for line in told(run.stdout)] == ["out/a/talk.txt", "out/b/talk.txt"]
