"""Conversations: each answer is that of a fresh prompt, and costs no more than what is new."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from PIL import Image
from tiny_model import write_adapter, write_tiny_model
from torch import Tensor, nn

from phi4mm_cli.asking import Asking
from phi4mm_cli.cancel import Cancelled
from phi4mm_cli.chat import Conversation as Record
from phi4mm_cli.chat import Turn, replay
from phi4mm_cli.chat.stopping import stoppable
from phi4mm_cli.chat.talking import Spoken, Talker
from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.demo.voice import speak
from phi4mm_cli.engines import Silence
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MemoryExhaustedError
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.options import LogOptions, SamplingOptions
from phi4mm_cli.report import Loading
from phi4mm_cli.schema import Clip, Message, Part, Picture, Piece, Reply, Request, Result, Sampling

PICTURE_TOKENS = 545  # of a small square one
SWITCH = 2000  # tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with both adapters; pictures fit in short of the LongRoPE switch."""
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    for name in ("speech", "vision"):
        write_adapter(folder, name=name)
    config = json.loads((folder / "config.json").read_text())
    config["original_max_position_embeddings"] = SWITCH
    config["rope_parameters"]["original_max_position_embeddings"] = SWITCH
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Picture], list[Clip]]:
    folder = tmp_path_factory.mktemp("media")
    pictures, clips = [], []
    for number in range(8):
        path = folder / f"{number}.png"
        Image.effect_noise((64, 64), 20 * (number + 1)).convert("RGB").save(path)
        pictures.append(Picture(audio.source(path)))
    for number, text in enumerate(("Oscar forgot the letter.", "I see a yellow bicycle.")):
        path = folder / f"{number}.wav"
        samples = speak(text).samples
        soundfile.write(path, samples, 16000)
        clips.append(Clip(audio.source(path), 0.0, len(samples) / 16000))
    return pictures, clips


class Bench:
    """An engine with what it does to be seen: positions that its decoder reads, and runs of its encoders."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.reads: list[int] = []
        self.heard = self.looked = 0
        decoder = engine._loaded().network.model
        media: Any = decoder.embed_tokens_extend
        self._watch(decoder.layers[0], lambda hidden: self.reads.append(hidden.shape[1]))
        self._watch(media.audio_embed.encoder.encoders[0], lambda hidden: setattr(self, "heard", self.heard + 1))
        tower = media.image_embed.img_processor.encoder.layers[0]
        self._watch(tower, lambda hidden: setattr(self, "looked", self.looked + 1))

    def _watch(self, layer: nn.Module, note: Any) -> None:
        layer.register_forward_pre_hook(lambda module, inputs: note(inputs[0]))

    def answer(self, request: Request) -> Result:
        self.reads, self.heard, self.looked = [], 0, 0
        stream = self.engine.stream(request)
        try:
            while True:
                next(stream)
        except StopIteration as end:
            result: Result = end.value
            return result


class Conversation:
    """Questions to one engine, each of which is also put to another that has kept nothing."""

    def __init__(self, here: Bench, fresh: Bench) -> None:
        self.here, self.fresh = here, fresh
        self.messages: tuple[Message, ...] = ()
        self.known = 0  # positions that are in the cache

    def request(self, *parts: Part, budget: int = 6) -> Request:
        return Request((*self.messages, Message("user", parts)), Sampling(budget))

    def ask(self, *parts: Part, budget: int = 6) -> Result:
        """The answer, which is that of a fresh prompt."""
        request = self.request(*parts, budget=budget)
        result = self.here.answer(request)
        self.fresh.engine._forget()
        assert result == self.fresh.answer(request)
        assert self.fresh.reads[0] == result.prompt_tokens
        self.messages = (*request.messages, Message("assistant", (result.reply,)))
        return result

    def asked_new(self, *parts: Part, budget: int = 6) -> int:
        """How many positions of the question and what stands around it were read; all before it must be known."""
        before, self.known = self.known, 0
        result = self.ask(*parts, budget=budget)
        assert self.here.reads[0] == result.prompt_tokens - before, (self.here.reads, result.prompt_tokens, before)
        self.known = result.prompt_tokens + len(result.tokens) - (result.finish != "stop")
        return self.here.reads[0]


@contextmanager
def benches(folder: Path, **settings: Any) -> Iterator[tuple[Bench, Bench]]:
    here, fresh = (LocalEngine(resolve(str(folder)), "cpu", **settings) for _ in range(2))
    with here, fresh:
        yield Bench(here), Bench(fresh)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Iterator[tuple[Bench, Bench]]:
    with benches(folder) as both:
        yield both


@pytest.fixture
def chat(plain: tuple[Bench, Bench]) -> Conversation:
    plain[0].engine._forget()
    return Conversation(*plain)


def test_text_then_a_picture_then_sound(chat: Conversation, media: tuple[list[Picture], list[Clip]]) -> None:
    (picture, *_), (clip, other) = media
    here = chat.here
    assert chat.asked_new("a b c") > 5
    assert chat.asked_new("d e f") < 15
    chat.known = 0  # the picture's adapter reads all anew
    chat.asked_new(picture, "g")
    assert here.looked > 0
    assert chat.asked_new("h i") < 15
    assert (here.looked, here.heard) == (0, 0)
    assert chat.fresh.looked > 0  # where nothing is kept
    chat.asked_new(clip, "j")
    assert (here.looked, here.heard) == (0, 1)
    chat.asked_new(other)
    assert (here.looked, here.heard) == (0, 1)
    assert chat.fresh.heard == 1  # both at once
    assert chat.asked_new("k") < 15
    assert (here.looked, here.heard) == (0, 0)


@pytest.mark.parametrize("settings", [{"attention": "eager"}, {"quantize": "int8"}, {"split": True}], ids=str)
def test_however_the_model_runs(
    folder: Path, media: tuple[list[Picture], list[Clip]], settings: dict[str, Any]
) -> None:
    (picture, *_), (clip, _) = media
    with benches(folder, **settings) as both:
        chat = Conversation(*both)
        chat.asked_new("a b c")
        assert chat.asked_new("d") < 15
        chat.known = 0
        chat.asked_new(picture, "e")
        before = chat.messages
        chat.asked_new(clip)
        assert (chat.here.looked, chat.here.heard) == (0, 1)
        chat.messages = before
        chat.ask("f")
        assert chat.here.reads[0] < 15


def test_the_demo_hears_and_goes_on() -> None:
    meeting = audio.source(SAMPLES / "meeting.flac")
    with LocalEngine(resolve("demo"), "cpu") as here, LocalEngine(resolve("demo"), "cpu") as fresh:
        chat = Conversation(Bench(here), Bench(fresh))
        chat.asked_new("What can you do?", budget=20)
        chat.known = 0  # the first recording brings its adapter, with which all is read afresh
        chat.asked_new(Clip(meeting, 0.0, 4.0), "Transcribe the audio clip into text.", budget=40)
        assert chat.asked_new("And in French?", budget=20) < 20
        before = chat.messages
        chat.asked_new(Clip(meeting, 4.0, 8.0), "Transcribe the audio clip into text.", budget=40)
        assert chat.here.heard == 1
        chat.messages = before
        chat.ask("What was that?", budget=20)
        assert (chat.here.heard, chat.fresh.heard) == (0, 1)


def test_sound_then_a_picture_is_another_projection_of_what_was_heard(
    chat: Conversation, media: tuple[list[Picture], list[Clip]]
) -> None:
    (picture, *_), (clip, _) = media
    chat.asked_new(clip, "a")
    assert chat.asked_new("b") < 15
    chat.known = 0
    chat.asked_new(picture, "c")
    assert chat.here.reads[0] > PICTURE_TOKENS
    assert (chat.here.looked > 0, chat.here.heard) == (True, 0)
    chat.messages = chat.messages[:4]  # back to the speech adapter: nothing needs an encoder
    chat.known = 0
    chat.asked_new("d")
    assert (chat.here.looked, chat.here.heard) == (0, 0)


def test_undo_and_another_question(chat: Conversation, media: tuple[list[Picture], list[Clip]]) -> None:
    (picture, second, *_), (clip, _) = media
    chat.asked_new(picture, "a b c d e f g")
    before, known = chat.messages, chat.known
    chat.asked_new(clip, "h")
    chat.messages = before
    chat.ask("i j")
    assert chat.here.reads[0] < 15
    chat.messages = before
    chat.ask(clip, "h")  # once more, from what was encoded
    assert (chat.here.looked, chat.here.heard) == (0, 0)
    chat.messages = before[:1]
    chat.messages = (Message("user", (picture, "a b c d x")), before[1])  # another wording of the first question
    result = chat.ask("k")
    assert 5 < chat.here.reads[0] < result.prompt_tokens - PICTURE_TOKENS < known
    chat.messages = (Message("user", (second, "a b c d x")), before[1])  # ... and about another picture
    result = chat.ask("k")
    assert PICTURE_TOKENS < chat.here.reads[0] < result.prompt_tokens


def test_the_same_question_again(chat: Conversation) -> None:
    chat.ask("a b c")
    again = chat.request("d")
    first = chat.here.answer(again)
    assert chat.here.answer(again) == first
    assert chat.here.reads[0] == 1


def test_an_answer_that_is_broken_off(chat: Conversation) -> None:
    chat.asked_new("a b c")
    request, here = chat.request("d e", budget=60), chat.here
    here.reads = []
    with closing(here.engine.stream(request)) as stream:
        said = [next(stream) for _ in range(4)]
    assert len(here.reads) < 40
    tokens = tuple(token for piece in said if isinstance(piece, Piece) for token in piece.tokens)
    assert Reply("".join(said), tokens) == chat.fresh.answer(chat.request("d e", budget=len(tokens))).reply
    chat.messages = (*request.messages, Message("assistant", (Reply("".join(said), tokens),)))
    chat.ask("f")
    assert here.reads[0] <= 6  # the last token of what was said, and what is new
    chat.messages = request.messages[:-1]  # or as if it had not been asked
    chat.ask("g")
    assert here.reads[0] == 3  # the turn begins as the other did: what is new is the question, its end, and who is next


def stopped(bench: Bench, conversation: Record, said: Message, after: int) -> Spoken:
    """What the user has heard who stops an answer after so many pieces."""
    log, heard = LogOptions(quiet=True), list[str]()

    def show(piece: str) -> None:
        heard.append(piece)
        if len(heard) == after:
            raise Cancelled

    model = Asking(bench.engine, Loading(log), log)
    spoken = Talker(model, SamplingOptions(max_new_tokens=80), private=False).answer(conversation, said, show)
    assert spoken.finish is None
    return spoken


def test_text_picture_sound_a_stop_and_an_undo(chat: Conversation, media: tuple[list[Picture], list[Clip]]) -> None:
    """As `phi4mm chat` holds it: each answer is that of a fresh prompt, and the stopped one is never tokenised."""
    (picture, *_), (clip, _) = media
    chat.ask("a b c")
    chat.ask(picture, "d")
    chat.ask(clip)
    asked = Message("user", ("e f",))
    for pieces in (1, 2, 7):
        so_far = replay([Turn(*turn) for turn in _turns(chat.messages)])
        spoken = stopped(chat.here, so_far, asked, pieces)
        [reply] = spoken.turn.replies[0].parts
        assert isinstance(reply, Reply)
        whole = chat.fresh.answer(chat.request("e f", budget=80))
        assert 0 < len(reply.tokens) < len(whole.tokens)
        assert whole.tokens[: len(reply.tokens)] == reply.tokens
        assert whole.text.startswith(reply.text)
        before = chat.messages
        chat.messages = (*before, spoken.turn.said, *spoken.turn.replies)
        result = chat.ask("g")
        assert chat.here.reads[0] <= 6
        assert (chat.here.looked, chat.here.heard) == (0, 0)
        assert result.prompt_tokens > len(reply.tokens) + PICTURE_TOKENS
        chat.messages = before  # the stopped answer is taken back too
        chat.ask("h")
        assert chat.here.reads[0] <= 6
    chat.messages = chat.messages[:2]  # before the picture: another adapter
    chat.ask("i")
    assert chat.here.reads[0] == chat.fresh.reads[0]


class Impatient(Silence):
    """Presses Ctrl-C so many times while the model is loaded."""

    def __init__(self, presses: int) -> None:
        self.presses, self.went_on = presses, 0

    def loaded(self, done: int, total: int) -> None:
        while self.presses:
            self.presses -= 1
            signal.raise_signal(signal.SIGINT)
            self.went_on += 1


@pytest.mark.parametrize(("presses", "raised"), [(1, Cancelled), (2, SystemExit)])
def test_the_loading_of_the_model_is_not_broken_off_anywhere(
    folder: Path, presses: int, raised: type[BaseException]
) -> None:
    """Half an import cannot be mended: Ctrl-C waits for the next weight; later questions are answered."""
    impatient = Impatient(presses)
    request = Request((Message("user", ("a b c",)),), Sampling(3))
    with LocalEngine(resolve(str(folder)), "cpu", listener=impatient) as engine:
        with stoppable(), pytest.raises(raised):
            next(engine.stream(request))
        assert impatient.went_on == 1
        assert len([*engine.stream(request)]) > 0


def _turns(messages: tuple[Message, ...]) -> Iterator[tuple[Message, tuple[Message, ...]]]:
    for said, reply in zip(messages[::2], messages[1::2], strict=True):
        yield said, (reply,)


@pytest.mark.parametrize("after", [0, 1, 7])
def test_an_interrupt_in_the_middle_of_a_step(chat: Conversation, after: int) -> None:
    chat.asked_new("a b c")
    request, steps = chat.request("d e", budget=60), iter(range(after + 1))
    layer = chat.here.engine._loaded().network.model.layers[1]

    def interrupt(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if next(steps) == after:  # when the first layer's part of the cache is longer already
            raise KeyboardInterrupt

    hook = layer.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        chat.here.answer(request)
    hook.remove()
    chat.ask("d e")
    assert chat.here.reads[0] == (1 if after else chat.fresh.reads[0] - chat.known)


def test_other_requests_between_turns_and_pieces(chat: Conversation, media: tuple[list[Picture], list[Clip]]) -> None:
    engine, clip = chat.here.engine, media[1][0]
    other = Request((Message("user", (clip, "a")),), Sampling(5))

    def answered() -> Result:
        engine.submit(other)
        [(_, result)] = engine.poll()
        assert isinstance(result, Result)
        return result

    expected = answered()
    chat.asked_new("a b c")
    assert answered() == expected
    assert chat.asked_new("d") < 15
    with closing(engine.stream(chat.request("e", budget=30))) as stream:
        for _ in range(3):
            next(stream)
            assert answered() == expected
    chat.ask("e")
    assert chat.here.reads[0] == 1


def test_settings_of_the_answer_may_change(chat: Conversation) -> None:
    chat.ask("a b c")
    request = chat.request("d e f")
    for settings in ({"temperature": 0.8, "seed": 4}, {"repetition_penalty": 1.3}, {"num_beams": 3}, {}):
        one = Request(request.messages, Sampling(9, **settings))  # type: ignore[arg-type]
        result = chat.here.answer(one)
        assert chat.here.reads[0] < result.prompt_tokens
        chat.fresh.engine._forget()
        assert chat.fresh.answer(one) == result
        if "num_beams" in settings:  # of several answers' caches none is kept
            chat.here.answer(one)
            assert chat.here.reads[0] == result.prompt_tokens
            chat.ask("a")


# -------------------------------------------------------------------------------------------- the LongRoPE switch


@pytest.fixture(scope="module")
def short(tiny_folder: Path) -> Iterator[tuple[Bench, Bench]]:
    """With a switch at 64 tokens."""
    with benches(tiny_folder) as both:
        yield both


def test_across_the_switch_and_back(short: tuple[Bench, Bench]) -> None:
    chat = Conversation(*short)
    chat.asked_new("a b c d e f g h i j")
    chat.asked_new("k")
    before, known = chat.messages, chat.known
    assert known < 50
    chat.known = 0  # beyond the switch all is turned by other angles
    assert chat.asked_new("l " * 30) > 64
    assert chat.asked_new("m") < 15
    beyond = chat.messages
    chat.messages, chat.known = before, 0
    assert chat.asked_new("n") < 64  # all of it again
    assert chat.asked_new("o") < 15
    chat.messages = beyond
    chat.ask("p")
    assert chat.here.reads[0] == chat.fresh.reads[0]


@pytest.mark.parametrize("words", range(2, 22, 4))
def test_an_answer_that_crosses_the_switch(short: tuple[Bench, Bench], words: int) -> None:
    chat = Conversation(*short)
    chat.ask("a b c")
    kept = len(chat.here.reads)
    assert kept
    result = chat.ask("d " * words, budget=70)
    assert result.prompt_tokens < 64 < result.prompt_tokens + len(result.tokens)
    assert chat.here.reads[0] < chat.fresh.reads[0]
    assert 65 in chat.here.reads  # once, all of it
    chat.ask("e")
    assert chat.here.reads[0] < 15


def test_an_answer_broken_off_beyond_the_switch(short: tuple[Bench, Bench]) -> None:
    chat = Conversation(*short)
    chat.ask("a b c d e f g h i j")
    request = chat.request("k " * 8, budget=200)
    assert len(chat.here.answer(Request(request.messages, Sampling(1))).tokens) == 1
    chat.here.reads = []
    with closing(chat.here.engine.stream(request)) as stream:
        while 65 not in chat.here.reads:
            next(stream)
    chat.messages = (*request.messages, Message("assistant", ("It was",)))
    chat.ask("l " * 40)
    assert chat.here.reads[0] < chat.fresh.reads[0] - 30
    chat.messages = request.messages[:-1]
    chat.ask("m")
    assert chat.here.reads[0] == chat.fresh.reads[0] < 64


@pytest.mark.slow
def test_the_demo_across_4096_tokens_and_back() -> None:
    """The real switch: an answer short of it, one across it, one beyond it, and one short of it again."""
    with LocalEngine(resolve("demo"), "cpu") as here, LocalEngine(resolve("demo"), "cpu") as fresh:
        assert here._loaded().rope_switch == 4096
        chat = Conversation(Bench(here), Bench(fresh))
        asked = "What is two plus three?"
        chat.messages = (Message("system", ("a b " * 1340,)),)
        short = chat.ask(asked, budget=12)
        assert chat.ask(asked, budget=12).prompt_tokens - short.prompt_tokens < 40
        assert chat.here.reads[0] < 20
        before, known = chat.messages, short.prompt_tokens + 40
        padding = 4092 - chat.fresh.answer(chat.request(asked, budget=1)).prompt_tokens
        across = chat.ask("a " * padding + asked, budget=12)
        assert known < across.prompt_tokens <= 4096 < across.prompt_tokens + len(across.tokens)
        assert chat.here.reads[0] < 4096 - short.prompt_tokens
        assert 4097 in chat.here.reads  # once, all of it
        assert chat.ask(asked, budget=12).prompt_tokens > 4096
        assert chat.here.reads[0] < 20
        chat.messages = before
        assert chat.ask("Say it again.", budget=12).prompt_tokens < 4096
        assert chat.here.reads[0] == chat.fresh.reads[0]


# --------------------------------------------------------------------------------------------------------- memory


def exhausted(bench: Bench, when: Any) -> Any:
    """A hook that runs out of memory in the last layer, when `when` says so."""

    def fail(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if when():
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    return bench.engine._loaded().network.model.layers[-1].register_forward_pre_hook(fail)


def test_without_memory_what_is_kept_goes_first(
    plain: tuple[Bench, Bench], media: tuple[list[Picture], list[Clip]]
) -> None:
    chat, here = Conversation(*plain), plain[0]
    chat.ask(media[0][0], "a b c")
    kept = here.engine._kept
    assert kept is not None
    hook = exhausted(here, lambda: len(here.reads) == 1)
    try:
        chat.ask("d")
        assert here.reads[1] == chat.fresh.reads[0]
        assert here.looked > 0
        here.engine._forget()
        with pytest.raises(MemoryExhaustedError, match="a single request"):
            here.answer(Request((Message("user", ("e",)),), Sampling(2)))
    finally:
        hook.remove()
    chat.ask("f")


def test_a_batch_is_not_halved_for_what_is_kept(plain: tuple[Bench, Bench]) -> None:
    chat, here = Conversation(*plain), plain[0]
    asked = [Request((Message("user", (word,)),), Sampling(5)) for word in "abcd"]

    def answers() -> dict[str, Any]:
        for one in asked:
            here.engine.submit(one)
        return dict(here.engine.poll())

    expected = answers()
    chat.ask("a b c")
    here.reads = []
    hook = exhausted(here, lambda: len(here.reads) == 1)
    try:
        assert answers() == expected
    finally:
        hook.remove()
    assert len(here.reads) == 1 + 5
    chat.ask("d")
    assert here.reads[0] == chat.fresh.reads[0]


def test_as_much_is_kept_of_media_as_a_prompt_may_have(
    plain: tuple[Bench, Bench], media: tuple[list[Picture], list[Clip]]
) -> None:
    here, (pictures, (clip, _)) = plain[0], media
    here.engine._forget()

    def encoded(part: Clip | Picture, *words: str) -> bool:
        here.answer(Request((Message("user", (part, *words)),), Sampling(1)))
        return bool(here.looked or here.heard)

    assert here.engine._loaded().context == 4096 < 8 * PICTURE_TOKENS
    assert encoded(clip)
    assert [encoded(picture) for picture in pictures[:3]] == [True] * 3
    assert not any(encoded(picture, "b") for picture in [pictures[0]])
    assert [encoded(picture) for picture in pictures[3:]] == [True] * 5
    assert not encoded(pictures[7], "b")
    assert not encoded(pictures[0], "c")  # used after the next two
    assert encoded(clip)
    assert encoded(pictures[1])


def test_leaving_frees_all(folder: Path) -> None:
    with LocalEngine(resolve(str(folder)), "cpu") as engine:
        Bench(engine).answer(Request((Message("user", ("a",)),), Sampling(2)))
        assert engine._kept is not None
    assert engine._kept is None
    assert not torch.is_inference_mode_enabled()
