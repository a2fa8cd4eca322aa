"""`phi4mm describe`: what is asked about pictures, pages and videos, answers by a schema, outputs, and refusals."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Phi4mm, Scripted
from documents import noise, write_locked, write_texts
from films import RATE, shade, write_film
from journalled import HereRun
from jsonschema import Draft202012Validator
from PIL import Image
from recordings import cut
from scripted import MEETING, ScriptedEngine, run_alone

from phi4mm_cli.commands.schema import json_schema
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.errors import AnswerError, InputError
from phi4mm_cli.flows import describe
from phi4mm_cli.flows.describe import PROMPTS, Options, Style
from phi4mm_cli.looking import Looking
from phi4mm_cli.media import audio
from phi4mm_cli.outputs import Description
from phi4mm_cli.paging import selection
from phi4mm_cli.schema import Clip, Finish, Picture, Request, Result
from phi4mm_cli.video_options import VideoOptions

ECHO = ("--engine", "echo")
CONTEXT = 131072
FORM = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


def answered(text: str, finish: Finish = "stop") -> Result:
    return Result(text, tuple(range(len(text.split()))), finish, 1)


def options(**changes: object) -> Options:
    settings = {"context": CONTEXT, "count": lambda text: len(text.split())} | changes
    return Options(**settings)  # type: ignore[arg-type]


def described(
    paths: Sequence[Path], how: Options, engine: EchoEngine | None = None
) -> tuple[Description, list[Request]]:
    engine = engine or ScriptedEngine(lambda request: answered("A picture."))
    body = run_alone(lambda: describe.flow([audio.source(path) for path in paths], how), engine)
    return body, engine.asked if isinstance(engine, ScriptedEngine) else []


def picture(folder: Path, name: str = "a.png", size: tuple[int, int] = (60, 40)) -> Path:
    noise(*size).save(folder / name)
    return folder / name


def film(path: Path, seconds: int = 20, **settings: object) -> Path:
    return write_film(path, (shade(n // RATE * 10) for n in range(seconds * RATE)), **settings)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize("style", Style)
def test_each_style_has_its_question_behind_the_picture(tmp_path: Path, style: Style) -> None:
    found, [request] = described([picture(tmp_path)], options(style=style))
    words, budget = PROMPTS[style]
    shown, asked = request.messages[0].parts
    assert isinstance(shown, Picture)
    assert asked == words.format(this="this image")
    assert request.sampling.max_new_tokens == budget
    assert (found.text, found.style, found.warnings) == ("A picture.", style.value, ())


def test_a_question_of_ones_own_is_all_that_is_asked(tmp_path: Path) -> None:
    found, [request] = described([picture(tmp_path)], options(prompt="How many?"))
    assert request.messages[0].parts[1:] == ("How many?",)
    assert found.style == "prompt"


def test_a_spoken_question_stands_alone_behind_the_pictures(tmp_path: Path) -> None:
    """As the model card has it: no words."""
    voice = Clip(audio.source(MEETING), 0.0, 2.5)
    found, [request] = described([picture(tmp_path), film(tmp_path / "b.mp4", 2)], options(voice=voice))
    *shown, spoken = request.messages[0].parts
    assert len(shown) == 17
    assert all(isinstance(part, Picture) for part in shown)
    assert spoken == voice
    assert found.style == "voice"


def test_several_pictures_are_compared_and_share_the_crops(tmp_path: Path) -> None:
    paths = [picture(tmp_path, f"{n}.png", (2000, 2000)) for n in range(3)]
    found, [request] = described(paths, options())
    assert "differ" in str(request.messages[0].parts[-1])
    assert [one.source for one in found.pictures] == ["0.png", "1.png", "2.png"]
    (tmp_path / "old").mkdir()
    again, _ = described([paths[0], picture(tmp_path, "old/0.png")], options())
    assert [one.source for one in again.pictures] == [f"{tmp_path.name}/0.png", "old/0.png"]
    assert {one.size for one in found.pictures} == {(2000, 2000)}
    assert {one.shown for one in found.pictures} == {(4 * 448, 4 * 448)}
    [warning] = found.warnings
    assert (warning.code, warning.message[:12]) == ("scaled_pictures", "3 of 3 pictu")
    alone, _ = described(paths[:1], options())
    assert (alone.pictures[0].shown, alone.warnings) == ((2240, 2240), ())  # as the model was trained: no more is lost
    few, _ = described(paths[:1], options(most_crops=1))
    assert [one.code for one in few.warnings] == ["scaled_pictures"]


def test_pages_are_pictures(tmp_path: Path) -> None:
    path = write_texts(tmp_path / "a.pdf", [["x"]] * 70)
    found, [request] = described([path], options(looking=Looking(selection("2-4"))))
    assert [one.page for one in request.pictures] == [2, 3, 4]
    assert (found.coverage.unit, found.coverage.total, found.coverage.read) == ("pages", 70, 3)
    assert {one.size for one in found.pictures} == {(1654, 2339)}
    with pytest.raises(InputError, match="70 pages") as caught:
        described([path], options())
    assert "--pages" in caught.value.advice


def test_what_does_not_fit_is_shown_smaller_or_refused(tmp_path: Path) -> None:
    path = picture(tmp_path, size=(1792, 1792))
    found, [request] = described([path], options(context=4000))
    assert found.pictures[0].tokens + request.sampling.max_new_tokens < 4000
    assert [warning.code for warning in found.warnings] == ["scaled_pictures"]
    with pytest.raises(InputError, match="room for"):
        described([path], options(context=1000))


# ---------------------------------------------------------------------------------------------------- videos


def test_frames_have_their_times(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4")
    found, [request] = described([path], options(looking=Looking(video=VideoOptions(frames=4))))
    assert [one.time for one in request.pictures] == [2.5, 7.5, 12.5, 17.5]
    words = str(request.messages[0].parts[-1])
    assert words == "The images are frames of a video, at 0:02, 0:07, 0:12, 0:17. What is shown in this video?"
    assert [one.time for one in found.pictures] == [2.5, 7.5, 12.5, 17.5]
    assert (found.coverage.unit, found.coverage.read) == ("seconds", pytest.approx(20, abs=0.2))
    silent = options(looking=Looking(video=VideoOptions(frames=4)), times=False, prompt="What moves?")
    assert described([path], silent)[1][0].messages[0].parts[-1] == "What moves?"
    close = options(looking=Looking(spans=((1.0, 2.0),), video=VideoOptions(every="0.5s")))
    assert "at 0:01.0, 0:01.5." in str(described([path], close)[1][0].messages[0].parts[-1])
    both, [request] = described([picture(tmp_path), path], options(looking=Looking(video=VideoOptions(frames=2))))
    assert str(request.messages[0].parts[-1]).startswith("Images 2 to 3 are frames of a video, at 0:05, 0:15. ")
    assert (both.coverage.unit, both.coverage.total) == ("pages", 3)


def test_more_frames_than_the_model_takes_are_left_out_evenly(tmp_path: Path) -> None:
    how = options(looking=Looking(video=VideoOptions(every="0.2s")))
    found, [request] = described([film(tmp_path / "a.mp4")], how)
    assert len(request.pictures) == 64
    [warning] = found.warnings
    assert warning.code == "fewer_frames"
    assert "100 frames" in warning.message


def test_the_sound_is_heard_where_there_is_some(tmp_path: Path) -> None:
    sound, _ = soundfile.read(MEETING, frames=5 * 16000, dtype="float32")
    path = film(tmp_path / "a.mp4", 5, sound=sound)
    found, [request] = described([path], options(looking=Looking(video=VideoOptions(frames=2, sound=True))))
    kinds = [type(part) for part in request.messages[0].parts]
    assert kinds == [Picture, Picture, Clip, str]
    assert found.coverage.speech is not None
    assert found.coverage.speech > 1
    mute, [request] = described([film(tmp_path / "b.mp4", 2)], options(looking=Looking(video=VideoOptions(sound=True))))
    assert not request.clips
    assert [warning.code for warning in mute.warnings] == ["no_sound"]


def test_a_summary_of_what_is_seen(phi4mm: Phi4mm, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4")
    run = phi4mm("summarize", "a.mp4", "--frames", "3", "--length", "short", "--json", "-o", "out", *ECHO)
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "out" / "a.summary.json").read_text())
    Draft202012Validator(json_schema()).validate(result)
    assert result["text"].startswith("[picture 3.333] [picture 10.000] [picture 16.667] The images are frames")
    assert result["text"].endswith("Summarize the video in one sentence.")
    assert (result["parts"][0]["start"], result["parts"][0]["end"]) == (0, pytest.approx(20, abs=0.2))
    for asked, start, end in (("2-4", 2, 4), ("2-4,6-9", 2, 9), ("8-", 8, 20), ("-5,7-99", 0, 20), ("2-4,50-", 2, 4)):
        ranged = phi4mm("summarize", "a.mp4", "--frames", "3", f"--range={asked}", "--jsonl", *ECHO)
        [part] = json.loads(ranged.stdout)["parts"]
        assert (part["start"], part["end"]) == (start, pytest.approx(end, abs=0.2))
    assert phi4mm("summarize", "a.mp4", "--frames", "3", "--grounded", *ECHO).returncode == 2
    assert phi4mm("summarize", "a.mp4", "--sound", *ECHO).returncode == 2


def test_the_sound_of_a_video_is_heard_as_it_is_asked_for(phi4mm: Phi4mm, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", 3, sound=np.zeros(3 * 16000, np.float32))
    looked = ("summarize", "a.mp4", "--frames", "1", "--sound", *ECHO)
    run = phi4mm(*looked)
    assert run.stdout.startswith("[picture 1.5")
    assert "[0.000-" not in run.stdout
    assert "there is no speech in it (--no-vad has all of it heard)" in run.stderr
    assert "[0.000-" in phi4mm(*looked, "--no-vad").stdout
    second = phi4mm(*looked, "--channel", "2")
    assert (second.returncode, "channel" in second.stderr) == (4, True)
    described = phi4mm("describe", "a.mp4", "--frames", "1", "--sound", *ECHO)
    assert described.stderr == "phi4mm: a.mp4: there is no speech in it\n"


# ---------------------------------------------------------------------------------------------------- answers


def test_an_answer_of_the_form_that_was_asked_for(tmp_path: Path) -> None:
    answers = iter(["Seven euros.", '```json\n{"total": "7"}\n```'])
    found, asked = described(
        [picture(tmp_path)], options(schema=FORM), ScriptedEngine(lambda request: answered(next(answers)))
    )
    assert (found.answer, json.loads(found.text), found.warnings) == ({"total": 7}, {"total": 7}, ())
    assert len(asked) == 2
    assert asked[0].pictures == asked[1].pictures
    assert '"required":["total"]' in str(asked[0].messages[0].parts[-1])
    with pytest.raises(AnswerError):
        described([picture(tmp_path)], options(schema=FORM), ScriptedEngine(lambda request: answered("No.")))


def test_answers_that_cannot_be_trusted_say_so(tmp_path: Path) -> None:
    for text, finish, code in (
        ("A dog", "length", "token_limit"),
        ("", "stop", "empty_answer"),
        ("a dog " * 60, "stop", "looping"),
    ):
        found, _ = described([picture(tmp_path)], options(), ScriptedEngine(lambda _, a=(text, finish): answered(*a)))  # type: ignore[misc]
        assert [warning.code for warning in found.warnings] == [code]
    fenced, _ = described(
        [picture(tmp_path)],
        options(style=Style.TABLE),
        ScriptedEngine(lambda _: answered("```markdown\n| a |\n|---|\n```")),
    )
    assert fenced.text == "| a |\n|---|"


# ---------------------------------------------------------------------------------------------------- the program


def test_files_are_described_together_and_folders_one_by_one(phi4mm: Phi4mm, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("in/a.png", "in/deep/b.jpg"):
        picture(tmp_path, name)
    film(tmp_path / "in" / "c.mp4", 2)
    pair = phi4mm("describe", "in/a.png", "in/deep/b.jpg", *ECHO)
    assert (pair.returncode, pair.stdout) == (0, f"[picture] [picture] {describe.COMPARE[Style.SHORT]}\n"), pair.stderr
    run = phi4mm("describe", "in", "-o", "out", "--frames", "2", "-f", "json,md,txt", *ECHO)
    assert run.returncode == 0, run.stderr
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.description.*"))
    assert names == [f"{n}.description.{kind}" for n in ("a", "c", "deep/b") for kind in ("json", "md", "txt")]
    for path in (tmp_path / "out").rglob("*.description.json"):
        Draft202012Validator(json_schema()).validate(json.loads(path.read_text()))
    result = json.loads((tmp_path / "out" / "c.description.json").read_text())
    assert [one["time"] for one in result["pictures"]] == [0.5, 1.5]
    each = phi4mm("describe", "in/a.png", "in/deep/b.jpg", "--each", "--jsonl", *ECHO)
    assert len(each.stdout.splitlines()) == 2


def test_a_schema_and_a_voice_on_the_command_line(phi4mm: Phi4mm, tmp_path: Path) -> None:
    picture(tmp_path)
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    run = phi4mm("describe", "a.png", "--schema", "form.json", *ECHO)
    assert (run.returncode, run.stdout) == (8, ""), run.stderr
    assert "schema" in run.stderr
    soundfile.write(tmp_path / "q.wav", np.zeros(8000), 16000)
    assert phi4mm("describe", "a.png", "--voice", "q.wav", *ECHO).stdout == "[picture] [0.000-0.500]\n"
    for wrong in (
        ("--voice", "q.wav", "--prompt", "x"),
        ("--schema", "a.png"),
        ("--frames", "65"),
        ("--every", "0"),
        ("--every", "5s", "--scenes"),
        ("--crops", "37"),
        ("--style", "alt", "--prompt", "x"),
        ("--prompt", ""),
        ("--style", "short", "--voice", "q.wav"),
        ("--range", "0:01-0:02"),
    ):
        assert phi4mm("describe", "a.png", *wrong, *ECHO).returncode == 2, wrong


def test_pages_are_chosen_of_documents_and_pictures_shown_whole(phi4mm: Phi4mm, tmp_path: Path) -> None:
    picture(tmp_path)
    write_texts(tmp_path / "slides.pdf", [["x"]] * 4)
    write_texts(tmp_path / "one.pdf", [["x"]])
    run = phi4mm("describe", "a.png", "slides.pdf", "--pages", "2-3", *ECHO)
    assert run.stdout.startswith("[picture] [picture page 2] [picture page 3] What"), run.stderr
    assert "one.pdf: there is no page 2" in phi4mm("describe", "a.png", "one.pdf", "--pages", "2-3", *ECHO).stderr
    alone = phi4mm("describe", "a.png", "--pages", "2-3", *ECHO)
    assert (alone.returncode, "--pages is for PDF and TIFF" in alone.stderr) == (2, True)


@pytest.mark.parametrize("answer", [None, {"share": 0.00012, "left": None}])
def test_an_answer_of_a_schema_is_written_as_it_is(scripted: Scripted, tmp_path: Path, answer: object) -> None:
    picture(tmp_path)
    (tmp_path / "form.json").write_text('{"type": ["object", "null"]}')
    asked = ("describe", "a.png", "--schema", "form.json", "-f", "json,md", "-o", "out")
    run = scripted([f"```json\n{json.dumps(answer)}\n```"], *asked)
    assert (run.returncode, run.stderr) == (0, "")
    result = json.loads((tmp_path / "out" / "a.description.json").read_text())
    Draft202012Validator(json_schema()).validate(result)
    assert (result["answer"], json.loads(result["text"])) == (answer, answer)
    written = json.dumps(answer, indent=2)
    assert f"```json\n{written}\n```\n" in (tmp_path / "out" / "a.description.md").read_text()


def test_what_nothing_named_can_be_chosen_of_is_refused(phi4mm: Phi4mm, tmp_path: Path) -> None:
    picture(tmp_path)
    run = phi4mm("describe", "a.png", "--range", "0:01-", *ECHO)
    assert run.stderr.startswith("phi4mm: error: --range is for videos, and none is named")
    assert "--pages is for PDF and TIFF" in phi4mm("describe", "a.mp4", "--pages", "2", *ECHO).stderr
    for named in ((".", "--each"), ("--files-from", "list.txt")):  # which may hold both
        (tmp_path / "list.txt").write_text("a.png\n", encoding="utf-8")
        assert phi4mm("describe", *named, "--range", "0:01-", "--jsonl", *ECHO).returncode == 0, named


def test_a_spoken_question_that_is_cut_off_is_told(phi4mm_here: HereRun, tmp_path: Path) -> None:
    picture(tmp_path)
    soundfile.write(tmp_path / "q.wav", np.zeros(8000), 16000)
    run = phi4mm_here("describe", "a.png", "--voice", cut(tmp_path / "q.wav"))
    assert (run.code, run.asked) == (0, 1)
    assert "warning: " in run.stderr and "q-cut.wav: " in run.stderr


def test_bad_input_is_told_at_once(phi4mm: Phi4mm, tmp_path: Path) -> None:
    write_locked(tmp_path / "locked.pdf")
    write_texts(tmp_path / "long.pdf", [["x"]] * 500)
    (tmp_path / "bomb.ppm").write_bytes(b"P6 40000 40000 255\n")
    noise(60, 80).save(tmp_path / "song.mp3", "PNG")
    noise(1, 1).save(tmp_path / "dot.png")
    noise(20000, 30).save(tmp_path / "wide.png")
    noise(20, 10).save(tmp_path / "moving.gif", save_all=True, append_images=[noise(20, 10, seed=1)] * 3)
    Image.new("RGB", (9000, 2)).save(tmp_path / "thread.png")
    whole = tmp_path / "whole.jpg"
    noise(600, 400).save(whole)
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-900])
    (tmp_path / "text.png").write_text("This is no picture.")
    soundfile.write(tmp_path / "talk.mp4", np.zeros(16000), 16000, format="WAV")
    film(tmp_path / "clip.mov", 2)
    (tmp_path / "clip.mov").write_bytes((tmp_path / "clip.mov").read_bytes()[:1000])
    names = sorted(path.name for path in tmp_path.iterdir())
    run = phi4mm("describe", *names, "--each", "-o", "out", "--json", *ECHO)
    assert run.returncode == 3
    refused = {"bomb.ppm": "pixels", "locked.pdf": "password", "text.png": "neither", "thread.png": "too narrow"}
    refused |= {"long.pdf": "500 pages", "talk.mp4": "only sound", "clip.mov": "index at its end is missing"}
    for name, words in refused.items():
        lines = [line for line in run.stderr.splitlines() if f"error: {name}: " in line]
        assert len(lines) == 1, (name, run.stderr)
        assert words in lines[0]
    written = {path.name.partition(".")[0] for path in (tmp_path / "out").glob("*.description.json")}
    assert written == {"song", "dot", "wide", "moving", "whole", "cut"}  # the echo engine decodes nothing
    how = Looking()
    for name in refused:
        began = time.process_time()
        with pytest.raises(InputError):
            describe.looking.probe(tmp_path / name, how)
            described([tmp_path / name], options())
        assert time.process_time() - began < 1, name


# ---------------------------------------------------------------------------------------------------- the model


def test_what_the_prompt_takes_is_known_before_it_is_sent(phi4mm: Phi4mm, tmp_path: Path, tiny_folder: Path) -> None:
    """Of pictures in any size, of pages and of frames: those of the result and the model's own count."""
    rng = random.Random(5)
    for number in range(5):
        noise(2, 2, number).resize(tuple(int(10 ** rng.uniform(1.5, 2.8)) for _ in range(2))).save(
            tmp_path / f"{number}.png"
        )  # type: ignore[arg-type]
    write_texts(tmp_path / "pages.pdf", [["x"], ["y"]])
    film(tmp_path / "film.mp4", 2)
    names = [path.name for path in tmp_path.iterdir() if path.is_file()]
    arguments = ("--each", "--jsonl", "--prompt", "a b", "--no-times", "--frames", "3", "--max-new-tokens", "2")
    run = phi4mm("describe", *names, *arguments, "--device", "cpu", "--model", tiny_folder)
    results = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(results) == 7, run.stderr
    words = {
        result["usage"]["prompt_tokens"] - sum(picture["tokens"] for picture in result["pictures"])
        for result in results
    }
    assert len(words) == 1  # what is no picture is the same question for all
