"""`phi4mm chat` with a question: what the model is told, what is on stdout, and what is kept of it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Phi4mm, Scripted, environment
from documents import noise, write_scans, write_texts
from films import shade, write_film
from journalled import HereRun
from jsonschema import Draft202012Validator
from PIL import Image

from phi4mm_cli import attaching, structured
from phi4mm_cli.chat import PRIVATE
from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.errors import InputError
from phi4mm_cli.schema import Picture

ECHO = ("--engine", "echo")
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "people": {"type": "integer"}}}
CITY |= {"required": ["city"], "additionalProperties": False}


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "q.wav", np.zeros(24000, "float32"), 16000)
    Image.new("RGB", (30, 20)).save(tmp_path / "p.png")
    (tmp_path / "notes.txt").write_text("Milk and bread.\n", encoding="utf-8")
    (tmp_path / "city.json").write_text(json.dumps(CITY), encoding="utf-8")


@pytest.fixture
def chat_here(phi4mm_here: HereRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HereRun:
    """The program in this process, where nothing is piped in, with a state folder of its own."""
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return phi4mm_here


def told(run: subprocess.CompletedProcess[str]) -> str:
    """What the model was told, by the echo engine."""
    assert run.returncode == 0, run.stderr
    return str(json.loads(run.stdout)["text"])


# --------------------------------------------------------------------------------------------------- the question


def test_an_answer_is_all_that_is_on_stdout(scripted: Scripted) -> None:
    run = scripted(["Two **words**.\n\n* one"], "chat", "Which?")
    assert (run.returncode, run.stdout, run.stderr) == (0, "Two **words**.\n\n* one\n", "")


def test_stdin_stands_behind_the_question(phi4mm: Phi4mm) -> None:
    assert told(phi4mm("chat", "What failed?", "--json", *ECHO, input="line 1\nline 2\n")) == (
        "What failed?\n\nline 1\nline 2"
    )
    assert told(phi4mm("chat", "--json", *ECHO, input="What failed?\n")) == "What failed?"
    assert told(phi4mm("chat", "Why?", "--json", *ECHO, stdin=subprocess.DEVNULL)) == "Why?"


def test_stdin_that_says_nothing_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "phi4mm_cli", "chat", "Why?", "--session", "s.jsonl", *ECHO]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, env=environment(tmp_path), **pipes) as run:  # type: ignore[call-overload]
        assert b"waiting for the end of stdin" in run.stderr.readline()
        run.send_signal(signal.SIGINT)
        assert run.communicate()[0] == b""
    assert run.returncode == 130
    assert not (tmp_path / "s.jsonl").exists()


def test_media_come_before_documents_and_these_before_words(phi4mm: Phi4mm) -> None:
    given = ("--doc", "notes.txt", "--audio", "q.wav", "--image", "p.png", "--image", "p.png", "--no-private")
    run = phi4mm("chat", "So?", "--json", *given, *ECHO)
    assert told(run) == "[picture] [picture] [0.000-1.500] notes.txt:\n\nMilk and bread.\n\n So?"
    written = json.loads(run.stdout)
    Draft202012Validator(json_schema()).validate(written)
    assert written["media"] == ["p.png", "p.png", "q.wav", "notes.txt"]
    assert (written["task"], written["question"], written["turns"]) == ("chat", "So?", 1)


def test_a_video_is_its_frames_and_its_sound(phi4mm: Phi4mm, tmp_path: Path) -> None:
    frames = [shade(number) for number in range(20)]
    write_film(tmp_path / "talk.mp4", frames, sound=np.zeros(32000, "float32"))
    write_film(tmp_path / "mute.mkv", frames)
    times = " ".join(f"[picture {2 * (number + 0.5) / 16:.3f}]" for number in range(16))
    both = phi4mm("chat", "So?", "--video", "talk.mp4", "--video", "mute.mkv", "--no-private", "--json", *ECHO)
    assert re.fullmatch(re.escape(f"{times} {times} ") + r"\[0\.000-2\.\d+\] So\?", told(both)), both.stdout
    assert json.loads(both.stdout)["media"] == ["talk.mp4", "mute.mkv"]
    whole = write_film(tmp_path / "long.mkv", frames * 4).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    cut = phi4mm("chat", "So?", "--video", "cut.mkv", "--json", *ECHO)
    assert told(cut).count("[picture") == 16
    assert "cut.mkv: its pictures end at" in cut.stderr
    (tmp_path / "noindex.mp4").write_bytes((tmp_path / "talk.mp4").read_bytes()[:1000])
    for name, words in {"noindex.mp4": "the index at its end is missing", "q.wav": "only sound"}.items():
        refused = phi4mm("chat", "So?", "--video", name, *ECHO)
        assert (refused.returncode, refused.stdout) == (4, "")
        assert f"{name}: " in refused.stderr and words in refused.stderr


def test_a_recording_alone_is_the_question_under_rules_for_voices(phi4mm: Phi4mm) -> None:
    run = phi4mm("chat", "--audio", "q.wav", "--system", "Be brief.", "--json", *ECHO)
    assert told(run) == f"{PRIVATE}\n\nBe brief. [0.000-1.500]"
    assert "question" not in json.loads(run.stdout)


def test_pages_with_text_are_text_and_others_pictures(tmp_path: Path) -> None:
    def parts(name: str) -> list[str | int | None]:
        read = attaching.document(tmp_path / name)
        assert read.name == name
        return [part.page if isinstance(part, Picture) else str(part) for part in read.parts]

    write_texts(tmp_path / "mixed.pdf", [["One"], [], ["Three"]])
    assert parts("mixed.pdf") == [2, "mixed.pdf:\n\nOne\n\nThree\n\n"]
    write_scans(tmp_path / "scan.pdf", [noise(200, 300)])
    assert parts("scan.pdf") == [1]
    assert parts("p.png") == [None]
    assert parts("notes.txt") == ["notes.txt:\n\nMilk and bread.\n\n"]
    (tmp_path / "code.py").write_text("print()", encoding="utf-16")
    assert parts("code.py") == ["code.py:\n\nprint()\n\n"]
    with pytest.raises(InputError, match=r"q\.wav: "):
        parts("q.wav")


def test_what_is_attached_in_a_wrong_way_is_sent_the_right_one(tmp_path: Path) -> None:
    write_texts(tmp_path / "page.pdf", [["One"]])
    for given, name, way in (
        ("image", "page.pdf", "doc"),
        ("image", "q.wav", "audio"),
        ("audio", "p.png", "image"),
        ("video", "p.png", "image"),
    ):
        with pytest.raises(InputError) as refused:
            attaching.attached(given, tmp_path / name)
        assert refused.value.advice == f"Attach it with /{way}, or --{way}"
    with pytest.raises(InputError, match="cannot"):
        attaching.attached("audio", tmp_path / f"{'a' * 300}.png")
    with pytest.raises(InputError) as refused:  # `tools call` knows no documents
        attaching.picture(tmp_path / "page.pdf")
    assert "/doc" not in refused.value.advice


def test_a_text_is_known_by_how_it_begins(tmp_path: Path) -> None:
    written = {"main.ts": "const n: number = 1;", "build.log": "\x1b[31merror\x1b[0m: 10%\b\b\b20%"}
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert attaching.document(tmp_path / name).parts == (f"{name}:\n\n{text}\n\n",)
    (tmp_path / "film.ts").write_bytes(b"G@\0\x10" + bytes(1000))  # of video, as its suffix says
    with pytest.raises(InputError, match=r"film\.ts: "):
        attaching.document(tmp_path / "film.ts")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "nothing is asked"),
        (["Hi", "--audio", "missing.wav"], 4, "missing.wav: there is no such file"),
        (["Hi", "--doc", "bytes.txt"], 4, "bytes.txt: it is not UTF-8 text"),
        (["Hi", "--schema", "bad.json"], 2, "this is no JSON Schema"),
        (["Hi", "--schema", "city.json", "--command", "wc {path}"], 2, "--schema and tools"),
        (["Hi", "--continue"], 2, "there is no conversation"),
        (["Hi", "--continue", "--session", "s.jsonl"], 2, "--continue and --session"),
        (["Hi", "--session", "notes.txt"], 4, "this is no session"),
        (["Hi", "--session", "/proc/s.jsonl"], 4, "cannot write the session /proc/s.jsonl"),
    ],
)
def test_refusals_are_one_line(phi4mm: Phi4mm, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9")
    (tmp_path / "bad.json").write_text('{"type": "thing"}', encoding="utf-8")
    run = phi4mm("chat", *arguments, *ECHO, stdin=subprocess.DEVNULL)
    assert (run.returncode, run.stdout) == (code, "")
    assert message in run.stderr
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--image", "--doc", "--session"])
@pytest.mark.parametrize("path", ["loop.png", "x" * 300, "~no-such-user/p.png"])
def test_paths_that_nobody_can_look_at_are_refused(chat_here: HereRun, tmp_path: Path, option: str, path: str) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "~no-such-user").touch()  # no folder, so that no session is begun there
    run = chat_here("chat", "Hi", option, path)
    assert (run.code, run.asked, run.stderr.count("\n")) == (4, 0, 1)
    assert path in run.stderr


@pytest.mark.parametrize("name", ["doc", "session"])
def test_a_project_file_shows_the_model_nothing(phi4mm: Phi4mm, tmp_path: Path, name: str) -> None:
    (tmp_path / "phi4mm.toml").write_text(f'[chat]\n{name} = "notes.txt"', encoding="utf-8")
    run = phi4mm("chat", "Hi", *ECHO)
    assert run.returncode == 2
    assert f"may not set '{name}'" in run.stderr


# ----------------------------------------------------------------------------------------------------- the answer


def test_answers_that_are_cut_off_say_so(phi4mm: Phi4mm) -> None:
    run = phi4mm("chat", "one two three", "--max-new-tokens", "2", "--json", *ECHO)
    assert "cut off by its token budget" in run.stderr
    written = json.loads(run.stdout)
    assert (written["finish"], [warning["code"] for warning in written["warnings"]]) == ("length", ["token_limit"])


def test_an_answer_of_a_schema_is_json(scripted: Scripted) -> None:
    asked = ("chat", "Which city?", "--schema", "city.json")
    run = scripted(['Here it is:\n```json\n{"city": "Zürich",\n "people": "5"}\n```'], *asked)
    assert (run.returncode, run.stdout) == (0, '{"city": "Zürich", "people": 5}\n')
    run = scripted(["Zürich", '{"city": "Zürich"}'], *asked, "--json")
    written = json.loads(run.stdout)
    assert json.loads(written["text"]) == {"city": "Zürich"}
    assert written["usage"]["calls"] == 2
    Draft202012Validator(json_schema()).validate(written)


def test_an_answer_that_is_not_of_the_schema_ends_with_8(scripted: Scripted) -> None:
    run = scripted(['{"people": 5}', '{"city": NaN}'], "chat", "Which city?", "--schema", "city.json")
    assert (run.returncode, run.stdout) == (8, "")
    assert "NaN is none of its numbers" in run.stderr


@pytest.mark.parametrize("value", ["1e999", "-1e999", '"\\ud83d"', '{"\\udc00": 1}'])
def test_an_answer_that_cannot_be_written_again_is_none(value: str) -> None:
    assert structured.read(f'{{"city": {value}}}', {"type": "object"})[1] is not None
    assert structured.read('{"city": "\\ud83c\\udfd9"}', CITY) == ({"city": "\U0001f3d9"}, None)


CALL = '<|tool_call|>[{"name": "wc", "arguments": {"path": "notes.txt"}}]<|/tool_call|>'


def test_tools_are_called_in_a_chat(scripted: Scripted) -> None:
    asked = ("chat", "How long?", "--command", "wc {path}", "--approve", "all")
    run = scripted([CALL, "15 letters."], *asked)
    assert (run.returncode, run.stdout) == (0, "15 letters.\n")
    assert "call wc notes.txt" in run.stderr
    written = json.loads(scripted([CALL, "15 letters."], *asked[:-2], "--json").stdout)
    assert written["steps"][0]["results"][0]["ending"] == "refused"
    assert written["tools"] == ["wc"]


# ------------------------------------------------------------------------------------------------------- sessions


def test_a_session_goes_on(phi4mm: Phi4mm, tmp_path: Path) -> None:
    session = ("--session", "s.jsonl", "--json", *ECHO)
    assert told(phi4mm("chat", "one", "--system", "Be brief.", "--image", "p.png", *session)) == (
        "Be brief. [picture] one"
    )
    path = tmp_path / "s.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    assert told(phi4mm("chat", "two", *session)) == "Be brief. [picture] one Be brief. [picture] one two"
    before = path.read_bytes()
    path.write_bytes(before + b'{"type": "Turn", "said": {"par')  # as a kill would leave it
    run = phi4mm("chat", "three", *session)
    assert told(run).endswith("one two three")
    assert json.loads(run.stdout)["turns"] == 3
    assert "1 lines were not written to their end" in run.stderr
    assert path.read_bytes().startswith(before)


def test_media_that_are_gone_are_named(phi4mm: Phi4mm, tmp_path: Path) -> None:
    session = ("--session", "s.jsonl", "--json", *ECHO)
    phi4mm("chat", "one", "--image", "p.png", *session)
    (tmp_path / "p.png").unlink()
    run = phi4mm("chat", "two", *session)
    assert told(run).startswith("[picture p.png, which is gone]")
    assert "p.png is gone or has changed" in run.stderr


def test_continue_takes_the_last_conversation_unless_none_is_kept(phi4mm: Phi4mm, tmp_path: Path) -> None:
    phi4mm("chat", "one", *ECHO)
    phi4mm("chat", "secret", "--no-history", *ECHO)
    assert told(phi4mm("chat", "two", "-c", "--json", *ECHO)) == "one one two"
    kept = [*(tmp_path / "state").rglob("*.jsonl")]
    assert len(kept) == 1
    assert [path.stat().st_mode & 0o077 for path in (kept[0], kept[0].parent)] == [0, 0]


def test_what_is_not_to_be_kept_is_not_added_to_what_goes_on(chat_here: HereRun, tmp_path: Path) -> None:
    assert chat_here("chat", "one").code == 0
    [kept] = (tmp_path / "state").rglob("*.jsonl")
    before = kept.read_bytes()
    run = chat_here("chat", "--continue", "--no-history", "secret", "--system", "Whisper.")
    assert (run.code, run.asked) == (0, 1)
    assert [*(tmp_path / "state").rglob("*.jsonl")] == [kept]
    assert kept.read_bytes() == before


def test_a_state_folder_that_cannot_be_written_stops_nobody(phi4mm: Phi4mm) -> None:
    run = phi4mm("chat", "one", *ECHO, env={"XDG_STATE_HOME": "/proc/nowhere"})
    assert (run.returncode, run.stdout.strip()) == (0, "one")
    assert "is not kept" in run.stderr
