"""Which files a run takes: of folders, patterns and lists, by rule, each once, in an order that stays."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path

import pytest
import soundfile
from conftest import Phi4mm
from documents import noise
from journalled import HereRun
from jsonschema import Draft202012Validator
from recordings import tone

from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.errors import UsageError
from phi4mm_cli.files import Input
from phi4mm_cli.finding import Found, Rules, Unfound, find, listed, once, read_list
from phi4mm_cli.media import AUDIO_SUFFIXES, DOCUMENT_SUFFIXES, VIDEO_SUFFIXES

SOUND = Rules(AUDIO_SUFFIXES | VIDEO_SUFFIXES)
ECHO = ("--engine", "echo", "--no-vad")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def told(found: Iterable[Found]) -> list[str]:
    """The paths, or what is wrong."""
    return [str(one.path) if isinstance(one, Input) else f"{one.label}: {one.error.message}" for one in found]


def stems(found: Iterable[Found]) -> list[str]:
    return [str(one.stem) for one in found if isinstance(one, Input)]


# ------------------------------------------------------------------------------------------ folders


def test_a_folder_is_searched_in_an_order_that_stays() -> None:
    names = ["rec/a.wav", "rec/b.MP3", "rec/a/z.flac", "rec/a/b/c.ogg", "rec/b/a.wav"]
    touch(*random.Random(1).sample(names, len(names)), "rec/notes.md", "rec/list.csv")
    assert told(find([Path("rec")], SOUND, "stdin")) == names
    assert stems(find([Path("rec")], SOUND, "stdin")) == ["a", "b", "a/z", "a/b/c", "b/a"]


def test_hidden_files_links_to_folders_and_what_is_no_file_are_left_out() -> None:
    touch("rec/a.wav", "rec/.hidden.wav", "rec/.phi4mm/b.wav", "other/c.wav")
    Path("rec/loop").symlink_to(Path("..").resolve())
    Path("rec/again").symlink_to(Path("rec").resolve())
    Path("rec/linked.wav").symlink_to(Path("other/c.wav").resolve())
    Path("rec/broken.wav").symlink_to("nowhere")
    Path("rec/named.wav").mkdir()
    os.mkfifo("rec/pipe.wav")
    assert told(find([Path("rec")], SOUND, "stdin")) == ["rec/a.wav", "rec/broken.wav", "rec/linked.wav"]


def test_outputs_of_earlier_runs_are_left_out() -> None:
    touch("rec/talk.srt", "rec/talk.fr.srt", "rec/other.en.srt")
    rules = Rules({".srt"}, tag="fr", replaced_tags=("en", "fr"))
    found = list(find([Path("rec")], rules, "stdin"))
    assert (told(found), stems(found)) == (["rec/other.en.srt", "rec/talk.srt"], ["other", "talk"])


def test_a_folder_without_any_is_told() -> None:
    touch("rec/notes.md")
    assert told(find([Path("rec")], SOUND, "stdin")) == ["rec: no media files in this folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_told() -> None:
    touch("rec/a.wav", "rec/closed/b.wav")
    Path("rec/closed").chmod(0)
    found = told(find([Path("rec")], SOUND, "stdin"))
    Path("rec/closed").chmod(0o700)
    assert found == ["rec/a.wav", "rec/closed: this folder cannot be searched: Permission denied"]


def test_content_counts_where_a_suffix_says_nothing_or_something_else() -> None:
    touch("rec/notes.txt", "rec/empty")
    Path("rec/text").write_text("RIFF is a word, WAVE is another", encoding="utf-8")
    formats = {"WAV": None, "FLAC": None, "OGG": "VORBIS", "AIFF": None, "CAF": None, "RF64": None, "AU": None}
    for number, (format, subtype) in enumerate(formats.items()):
        soundfile.write(f"rec/2024.01.0{number}", tone(16000, 0.2), 16000, format=format, subtype=subtype)
    soundfile.write("rec/wrong.txt", tone(16000, 0.2), 16000, format="WAV")
    noise(64, 64).save("rec/scan", "PNG")
    noise(64, 64).save("rec/scan.wrong", "TIFF")
    named = [f"rec/2024.01.0{number}" for number in range(len(formats))]
    found = list(find([Path("rec")], SOUND, "stdin"))
    assert told(found) == [*named, "rec/wrong.txt"]
    assert stems(found) == [name.removeprefix("rec/") for name in told(found)]
    assert told(find([Path("rec")], Rules(DOCUMENT_SUFFIXES), "stdin")) == ["rec/scan", "rec/scan.wrong"]


# ------------------------------------------------------------------------------------------ patterns


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("rec/*.wav", ["rec/a.wav"]),
        ("rec/**/*.wav", ["rec/a.wav", "rec/deep/b.wav", "rec/deep/er/c.wav"]),
        ("rec/**", ["rec/a.wav", "rec/z.mp3", "rec/deep/b.wav", "rec/deep/er/c.wav"]),
        ("rec/*", ["rec/a.wav", "rec/deep/b.wav", "rec/deep/er/c.wav", "rec/z.mp3"]),
        ("**/b.wav", ["rec/deep/b.wav"]),
        ("r?c/d*/*.wav", ["rec/deep/b.wav"]),
        ("rec/*.flac", ["rec/*.flac: no media files match this pattern"]),
        ("none/*.wav", ["none/*.wav: no media files match this pattern"]),
    ],
)
def test_patterns_that_no_shell_has_expanded(pattern: str, expected: list[str]) -> None:
    touch("rec/a.wav", "rec/z.mp3", "rec/notes.md", "rec/.hidden.wav", "rec/deep/b.wav", "rec/deep/er/c.wav")
    Path("rec/deep/loop").symlink_to(Path("rec").resolve())
    assert told(find([Path(pattern)], SOUND, "stdin")) == expected


def test_what_a_pattern_matches_keeps_its_folders_and_a_file_of_that_name_comes_first() -> None:
    touch("rec/a/talk.wav", "rec/b/talk.wav", "take[1].wav", "take1.wav")
    assert stems(find([Path("rec/*/talk.wav")], SOUND, "stdin")) == ["a/talk", "b/talk"]
    assert told(find([Path("take[1].wav")], SOUND, "stdin")) == ["take[1].wav"]


def test_everything_once() -> None:
    touch("rec/a.wav", "rec/b.wav")
    paths = [Path("rec/b.wav"), Path("rec"), Path("rec/../rec/a.wav"), Path("rec/a.wav").resolve(), Path("rec/*.wav")]
    assert told(once(find(paths, SOUND, "stdin"))) == ["rec/b.wav", "rec/a.wav"]


# ------------------------------------------------------------------------------------------ lists


def test_a_list_may_name_anything() -> None:
    names = [b"plain.wav", b"-dash.wav", b"* ?.wav", b" spaces ", b"caf\xe9.wav", "émoji 🎙.wav".encode(), b"# no.wav"]
    Path("lines").write_bytes(b"\r\n".join(names) + b"\n\n" + b"-")
    found = list(read_list(Path("lines"), null=False))
    assert [os.fsencode(path) for path in found] == [*names, os.fsencode(Path.cwd() / "-")]
    Path("nulls").write_bytes(b"line\nbreak.wav\0\0other\r\0last")
    assert list(map(str, read_list(Path("nulls"), null=True))) == ["line\nbreak.wav", "other\r", "last"]
    with pytest.raises(UsageError, match="cannot read the list none: No such file"):
        list(read_list(Path("none"), null=False))


def test_a_list_with_nul_bytes_is_none_of_lines(phi4mm_here: HereRun) -> None:
    soundfile.write("a.wav", tone(16000, 0.2), 16000)
    Path("list").write_bytes(b"a.wav\0b.wav\0")
    run = phi4mm_here("transcribe", "--files-from", "list", "-o", "out", "--no-vad")
    assert (run.code, run.asked, Path("out").exists()) == (2, 0, False)
    assert run.last == "error: the list has NUL bytes in it. Give -0 (--null) for what `find -print0` writes"
    assert phi4mm_here("transcribe", "--files-from", "list", "-0", "-o", "out", "--no-vad").asked == 1


def test_a_long_list_is_read_in_pieces() -> None:
    names = [f"{number}{'x' * (number % 200)}.wav" for number in range(5000)]
    Path("list").write_text("\n".join(names), encoding="utf-8")
    assert list(map(str, read_list(Path("list"), null=False))) == names


def test_what_a_list_names_keeps_its_folders(tmp_path: Path) -> None:
    touch("rec/sub/a.wav", "rec/sub/b.wav")
    paths = ["a.wav", "rec/x.wav", "../up.wav", "/data/x.y.wav", str(tmp_path / "in.wav"), "2024.01.31", "rec/sub"]
    found = listed(map(Path, paths), SOUND)
    names = ["a", "rec/x", "up", "data/x.y", "in", "2024.01.31", "rec/sub/a", "rec/sub/b"]
    assert stems(found) == names


def test_files_from_a_list(phi4mm: Phi4mm, tmp_path: Path) -> None:
    for name in ("a/talk.wav", "b/talk.wav", "c.wav"):
        Path(name).parent.mkdir(exist_ok=True)
        soundfile.write(name, tone(16000, 1.0), 16000)
    Path("list").write_text("b/talk.wav\nmissing.wav\na/talk.wav\nb/talk.wav\n", encoding="utf-8")
    run = phi4mm("transcribe", "c.wav", "--files-from", "list", "-o", "out", *ECHO)
    assert run.returncode == 3
    assert run.stderr.splitlines()[-1] == "phi4mm: 4 inputs: 3 done, 1 failed"
    written = sorted(str(path.relative_to("out")) for path in Path("out").rglob("*.txt"))
    assert written == ["a/talk.txt", "b/talk.txt", "c.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no input is named"),
        (["--files-from", "none"], "cannot read the list none"),
        (["-", "--files-from", "-"], "stdin is both"),
        (["a.wav", "-0"], "--null is for the list of --files-from"),
    ],
)
def test_refusals(phi4mm: Phi4mm, arguments: list[str], message: str) -> None:
    run = phi4mm("transcribe", *arguments, *ECHO)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert message in run.stderr


def test_what_fails_is_a_line_of_jsonl_too(phi4mm: Phi4mm) -> None:
    soundfile.write("good.wav", tone(16000, 1.0), 16000)
    Path("bad.wav").write_bytes(b"RIFF" + bytes(100))
    Path("empty").mkdir()
    run = phi4mm("transcribe", "good.wav", "bad.wav", "missing.wav", "empty", "--jsonl", *ECHO)
    assert run.returncode == 3
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    for line in lines:
        Draft202012Validator(json_schema()).validate(line)
    failures = {line["source"]: line["error"] for line in lines if line["task"] == "failure"}
    assert {"good.wav"} == {line["source"] for line in lines if line["task"] == "transcript"}
    assert set(failures) == {"bad.wav", "missing.wav", "empty"}
    assert failures["missing.wav"]["type"] == "InputError"
    assert "no such file" in failures["missing.wav"]["message"]


LONG = "x" * 296 + ".png"  # bytes; no file system has such names


def test_names_that_nobody_can_look_at_are_failures_of_their_own(phi4mm_here: HereRun) -> None:
    for folder in ("rec", "named"):
        Path(folder).mkdir()
        noise(30, 20).save(f"{folder}/a.png")
        Path(folder, "loop.png").symlink_to("loop.png")
    Path("list").write_text(f"named/a.png\nb{LONG}\nnamed/loop.png\n", encoding="utf-8")
    run = phi4mm_here("describe", "rec", LONG, "--files-from", "list", "-o", "out", "--report", "report.json")
    assert run.code == 3
    assert run.last == "6 inputs: 2 done, 4 failed"
    failed = [line.split(": ")[2] for line in run.stderr.splitlines() if "phi4mm: error: " in line]
    assert sorted(failed) == sorted(["rec/loop.png", LONG, f"b{LONG}", "named/loop.png"])
    assert sorted(map(str, Path("out").rglob("*.txt"))) == ["out/a.description.txt", "out/named/a.description.txt"]
    assert phi4mm_here("describe", "rec/a.png", LONG).last == "2 inputs: 1 done, 1 failed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_is_in_a_folder_that_may_not_be_entered_is_a_failure_of_its_own(phi4mm_here: HereRun) -> None:
    for path in (Path("rec/a.png"), Path("closed/b.png")):
        path.parent.mkdir()
        noise(30, 20).save(path)
    Path("rec/linked.png").symlink_to(Path("closed/b.png").resolve())
    Path("closed").chmod(0)
    run = phi4mm_here("describe", "closed/b.png", "rec", "-o", "out")
    Path("closed").chmod(0o700)
    assert (run.code, run.last) == (3, "3 inputs: 1 done, 2 failed")
    assert "error: closed/b.png: " in run.stderr
    assert "error: rec/linked.png: " in run.stderr


@pytest.mark.parametrize("option", [("--jsonl", "-o"), ("--report",), ("--voice",)])
def test_an_option_may_name_what_no_disk_takes(phi4mm_here: HereRun, option: tuple[str, ...]) -> None:
    noise(30, 20).save("a.png")
    run = phi4mm_here("describe", "a.png", *option, LONG)
    assert (run.code, run.asked, run.stderr.count("\n")) == (4 if option == ("--voice",) else 2, 0, 1)
    assert LONG in run.stderr


def test_unfound_has_advice() -> None:
    touch("rec/notes.md")
    [one] = find([Path("rec")], SOUND, "stdin")
    assert isinstance(one, Unfound)
    assert ".wav" in one.error.advice
