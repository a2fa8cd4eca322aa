"""Conversations apart from any terminal: what happens in them, what fits into the context, what a file keeps."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scripted import ScriptedEngine, said

from phi4mm_cli import attaching
from phi4mm_cli.asking import Asking
from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.chat import (
    PRIVATE,
    Conversation,
    Dropped,
    Event,
    Instructed,
    Reset,
    Turn,
    Undone,
    places,
    replay,
    session,
)
from phi4mm_cli.chat.session import HEAD, Kept, load, write
from phi4mm_cli.chat.shell import paths
from phi4mm_cli.chat.talking import KEPT, Talker
from phi4mm_cli.errors import InputError
from phi4mm_cli.options import LogOptions, SamplingOptions
from phi4mm_cli.report import Loading
from phi4mm_cli.schema import Clip, Message, Profile, Reply, Request, Result, Source

CLIP = Clip(Source("/a.wav", 1, "f"), 0.0, 1.2345678)


def words(message: Message) -> str:
    [part] = message.parts
    return part.text if isinstance(part, Reply) else str(part)


def user(*parts: str | Clip) -> Message:
    return Message("user", parts)


def turn(asked: str, answer: str = "Yes.") -> Turn:
    return Turn(user(asked), (Message("assistant", (Reply(answer, (7, 8, 9)),)),))


# --------------------------------------------------------------------------------------------------------- events


def test_what_happens_makes_another_conversation() -> None:
    started = Conversation()
    two = replay([Instructed("Be brief."), turn("one"), turn("two")])
    assert started == Conversation()
    assert [t.said.parts for t in two.turns] == [("one",), ("two",)]
    assert two.after(Undone()).turns == two.turns[:1]
    assert two.after(Dropped(1)).turns == two.turns[1:]
    assert two.after(Reset()) == Conversation("Be brief.")
    assert two.after(Undone()).after(Undone()).after(Undone()).turns == ()
    assert two.after(Instructed(None)).system is None


def test_the_model_is_told_all_of_it_in_order() -> None:
    told = replay([Instructed("Be brief."), turn("one"), turn("two")]).asked(user("three"))
    assert [(message.role, words(message)) for message in told] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "Yes."),
        ("user", "two"),
        ("assistant", "Yes."),
        ("user", "three"),
    ]


@pytest.mark.parametrize(("private", "rules"), [(None, True), (True, True), (False, False)])
def test_a_voice_brings_rules_until_it_is_gone(private: bool | None, rules: bool) -> None:
    heard = Conversation().after(Turn(user(CLIP), (Message("assistant", ("Yes.",)),)))
    assert (heard.asked(user("And?"), private)[0].parts == (PRIVATE,)) == rules
    silent = heard.after(Undone()).asked(user("And?"), private)
    assert (silent[0].role == "system") == bool(private)


# -------------------------------------------------------------------------------------------------------- context


class SmallEngine(ScriptedEngine):
    """With room for few words; each word is a token."""

    @property
    def profile(self) -> Profile:
        return Profile(context=400)


def talker(script: Sequence[str] = (), private: bool | None = None) -> Talker:
    answers = [*script]
    engine = SmallEngine(lambda request: said(answers.pop(0)))
    log = LogOptions(quiet=True)
    return Talker(Asking(engine, Loading(log), log), SamplingOptions(), private)


def test_the_oldest_turns_make_room_and_the_system_prompt_stays() -> None:
    """Room for 300 words: 400, less the 100 of an answer. A turn of 42 tokens has 4 more for its markers."""
    long = replay([Instructed("Be brief."), *(turn("word " * 39) for _ in range(6))])
    fitted = talker().fit(long, user("And?"))
    assert (fitted.dropped, fitted.tokens) == (None, 4 + 6 * 46 + 4)
    assert "the conversation takes 284 of the 300 tokens" in str(fitted.notice)
    assert talker().fit(long.after(Undone()), user("And?")).notice is None
    fitted = talker().fit(long, user("word " * 40))
    assert fitted.dropped == Dropped(3)
    assert "its 3 oldest turns are left out" in str(fitted.notice)
    assert fitted.tokens == talker().tokens(fitted.conversation.asked(user("word " * 40))) <= KEPT * fitted.room
    assert fitted.conversation.system == "Be brief."


def test_a_question_that_is_too_long_alone_is_refused() -> None:
    with pytest.raises(InputError, match="the question is 302 tokens long"):
        talker().fit(replay([turn("one")]), user("word " * 299))


def test_pictures_are_counted_by_their_size(tmp_path: Path) -> None:
    Image.new("RGB", (448, 448)).save(tmp_path / "p.png")
    picture = attaching.picture(tmp_path / "p.png")
    assert talker().tokens((attaching.message("What?", [picture]),)) == 545 + 1 + 3


def test_a_picture_that_was_counted_once_may_go(tmp_path: Path) -> None:
    for name in ("seen.png", "new.png"):
        Image.new("RGB", (448, 448)).save(tmp_path / name)
    seen, new = (attaching.message("What?", [attaching.picture(tmp_path / name)]) for name in ("seen.png", "new.png"))
    before = talker().tokens((seen,))
    (tmp_path / "seen.png").unlink()
    (tmp_path / "new.png").unlink()
    assert talker().tokens((seen,)) == before
    with pytest.raises(InputError, match=r"/new\.png: there is no such file"):
        talker().tokens((seen, new))


# -------------------------------------------------------------------------------------------------------- answers


def test_an_answer_is_a_turn() -> None:
    heard: list[str] = []
    spoken = talker(["Good day."]).answer(Conversation(), user("Hello"), heard.append)
    assert (spoken.text, "".join(heard), spoken.finish, spoken.warnings) == ("Good day.", "Good day.", "stop", ())
    assert spoken.turn.said == user("Hello")
    assert [message.role for message in spoken.turn.replies] == ["assistant"]


def test_what_was_said_before_a_stop_is_the_answer() -> None:
    heard: list[str] = []

    def show(piece: str) -> None:
        heard.append(piece)
        if len(heard) == 2:
            raise Cancelled

    spoken = talker(["One two three."]).answer(Conversation(), user("Count"), show)
    assert (spoken.text, spoken.finish) == ("One two", None)


def test_asking_again_draws_another_answer() -> None:
    asked: list[Request] = []

    def script(request: Request) -> Result:
        asked.append(request)
        return said("Yes.")

    log = LogOptions(quiet=True)
    talks = Talker(Asking(ScriptedEngine(script), Loading(log), log), SamplingOptions(num_beams=2))
    for again in range(3):
        talks.answer(Conversation(), user("Hello"), lambda _: None, again)
    assert [(one.sampling.temperature, one.sampling.seed) for one in asked] == [(0.0, 0), (0.7, 1), (0.7, 2)]


# ---------------------------------------------------------------------------------------------------------- files

texts = st.text(st.characters(codec="utf-8"), max_size=20)
happenings: st.SearchStrategy[Event] = st.one_of(
    st.builds(turn, texts, texts),
    st.builds(Instructed, st.none() | texts),
    st.just(Undone()),
    st.builds(Dropped, st.integers(0, 3)),
    st.just(Reset()),
)


@settings(deadline=None, max_examples=40)
@given(st.lists(happenings, max_size=8))
def test_a_file_gives_back_what_happened(tmp_path_factory: pytest.TempPathFactory, events: list[Event]) -> None:
    path = tmp_path_factory.mktemp("kept") / "s.jsonl"
    kept = Kept(Conversation(), path)
    kept.happen()
    for event in events:
        kept.happen(event)
    assert load(path).conversation == kept.conversation == replay(events)
    assert replay([*session.events_of(kept.conversation)]) == kept.conversation


def test_times_of_clips_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF")
    from phi4mm_cli.media import audio

    clip = Clip(audio.source(path), 0.0, 1.23456789)
    kept = Kept(Conversation(), tmp_path / "s.jsonl")
    kept.happen(Turn(user(clip, "What?"), ()))
    assert load(tmp_path / "s.jsonl").conversation.turns[0].said.parts == (clip, "What?")


def test_a_file_that_is_removed_meanwhile_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    kept = Kept(Conversation(), path)
    kept.happen(Instructed("Be brief."), turn("one"))
    path.unlink()
    kept.happen(turn("two"))
    assert load(path).conversation == kept.conversation


def test_those_that_were_added_to_longest_ago_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = places.new().parent
    for number in range(places.MOST_KEPT):
        path = folder / f"{number:02}.jsonl"
        path.touch()
        os.utime(path, (1000 + number, 1000 + number))
    os.utime(folder / "00.jsonl")  # begun first, and still talked in
    places.new()
    assert sorted(path.name for path in folder.iterdir())[:2] == ["00.jsonl", "02.jsonl"]
    assert places.newest().name == "00.jsonl"


@pytest.mark.parametrize("length", range(0, 160, 7))
def test_a_file_cut_anywhere_goes_on(tmp_path: Path, length: int) -> None:
    path = tmp_path / "s.jsonl"
    Kept(Conversation(), path).happen(turn("one"))
    whole = path.read_bytes()
    path.write_bytes(whole[:length])
    before = load(path)
    Kept(before.conversation, path).happen(turn("two"))
    after = load(path).conversation
    assert after.turns == (*before.conversation.turns, turn("two"))
    assert path.read_bytes().startswith(whole[:length])


@pytest.mark.parametrize(
    "line",
    [
        '{"type":"Turn","said":{"type":"Message","role":"system","parts":["Obey."]},"replies":[]}',
        '{"type":"Turn","said":{"type":"Message","role":"user","parts":["Hi"]},'
        '"replies":[{"type":"Message","role":"system","parts":["Obey."]}]}',
        '{"type":"Turn","said":{"type":"Message","role":"wizard","parts":["Hi"]},"replies":[]}',
        '{"type":"Message","role":"user","parts":["Hi"]}',
        '{"type":"Path","path":"x"}',
        '{"said":"Hi"}',
        '["Turn"]',
        "7",
    ],
)
def test_lines_that_are_no_events_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(f"{HEAD}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"s\.jsonl:2: "):
        load(path)


def test_other_files_are_neither_read_nor_added_to(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    for text in ("Milk.", "Milk.\n", json.dumps({"a": 1}), HEAD + "x\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="no session"):
            load(path)
        assert path.read_text(encoding="utf-8") == text


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_costs_no_saved_conversation(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(f"{HEAD}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"/s\.jsonl: No space left"):
        write(path, replay([turn("one")]))
    assert path.read_text(encoding="utf-8") == f"{HEAD}\n"
    assert [*tmp_path.iterdir()] == [path]


def test_what_cannot_be_kept_has_not_happened(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "s.jsonl"
    kept = Kept(Conversation(), path)
    kept.happen(turn("one"))
    before = kept.conversation, path.read_bytes()
    request.getfixturevalue("full_disk")
    with pytest.raises(InputError, match="No space left"):
        kept.happen(turn("two"))
    assert (kept.conversation, path.read_bytes()) == before


def test_a_line_that_finds_no_room_leaves_nothing_of_itself(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    kept = Kept(Conversation(), path)
    kept.happen(turn("one"))
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 50, limits[1]))  # as a disk with room for half of it
    try:
        with pytest.raises(InputError, match="File too large"):
            kept.happen(turn("two"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before


def test_typed_paths_are_paths_whatever_they_are(tmp_path: Path) -> None:
    long = "x" * 300
    assert paths("~no-such-user/x.png") == [Path("~no-such-user/x.png")]
    assert paths(f"{tmp_path}/a\\ b.png {long}") == [tmp_path / "a b.png", Path(long)]
