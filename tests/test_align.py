"""Word times from the decoder's attention: true to the sound, one row like another, whole words in every script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from phi4mm_cli import hearing, timing
from phi4mm_cli.demo.voice import Speech, speak
from phi4mm_cli.engines.echo import EchoEngine
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.hearing import Answer
from phi4mm_cli.media import audio
from phi4mm_cli.media.speech import Chunk, Region
from phi4mm_cli.model import align
from phi4mm_cli.model.align import Answered
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.composing import Prompt, compose
from phi4mm_cli.model.generate import generate
from phi4mm_cli.model.loading import Model, load
from phi4mm_cli.prompt import render
from phi4mm_cli.schema import Clip, Message, Part, Request, Result, Sampling, Source, Word

SENTENCES = (
    "Oscar forgot the letter on Monday.",
    "The price is forty dollars.",
    "Please send the budget to Nina before Tuesday.",
    "Julia and Carol are working on the camera.",
    "I see a yellow bicycle near the house.",
)
ASK = "Transcribe the audio clip into text."
NOWHERE = Clip(Source("a.wav", 1, "f"), 0.0, 1.0)


def asked(*parts: Part, word_times: bool = True) -> Request:
    return Request((Message("user", parts),), Sampling(60), word_times=word_times)


def saved(folder: Path, number: int) -> tuple[Clip, Speech]:
    """A sentence with 0.4 s of silence before it, as a file."""
    speech = speak(SENTENCES[number])
    path = folder / f"{number}.wav"
    soundfile.write(path, np.concatenate([np.zeros(6400, np.float32), speech.samples]), speech.rate)
    return Clip(audio.source(path), 0.0, 0.4 + len(speech.samples) / speech.rate), speech


def answers(requests: Sequence[Request], batch_size: int) -> list[Result]:
    found = {}
    with LocalEngine(resolve("demo"), device="cpu", batch_size=batch_size) as engine:
        for request in requests:
            engine.submit(request)
        while outcomes := engine.poll():
            found.update(outcomes)
    results = [found[request.key] for request in requests]
    assert all(isinstance(result, Result) for result in results)
    return results  # type: ignore[return-value]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Clip, Speech]]:
    return [saved(tmp_path_factory.mktemp("spoken"), number) for number in range(len(SENTENCES))]


@pytest.fixture(scope="module")
def timed(spoken: list[tuple[Clip, Speech]]) -> list[Result]:
    """The answers from one batch."""
    return answers([asked(clip, ASK) for clip, _ in spoken], batch_size=8)


def test_words_begin_where_they_sound(spoken: list[tuple[Clip, Speech]], timed: list[Result]) -> None:
    errors = []
    for (_, speech), result in zip(spoken, timed, strict=True):
        assert result.words is not None
        assert [word.word for word in result.words] == result.text.split()
        if result.text.split() == [word.text for word in speech.words]:
            pairs = list(zip(result.words, speech.words, strict=True))[1:]  # the first is looked for from the start on
            errors += [abs(word.start - 0.4 - true.start) for word, true in pairs]
    assert len(errors) >= 15
    assert np.median(errors) <= 0.06
    assert np.quantile(errors, 0.95) <= 0.2


def test_words_fill_the_clip_in_order(spoken: list[tuple[Clip, Speech]], timed: list[Result]) -> None:
    for (clip, _), result in zip(spoken, timed, strict=True):
        times = [time for word in result.words or () for time in (word.start, word.end)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert clip.end - 0.02 <= times[-1] <= clip.end + 0.08


def test_times_do_not_depend_on_the_batch(spoken: list[tuple[Clip, Speech]], timed: list[Result]) -> None:
    alone = answers([asked(clip, ASK) for clip, _ in spoken], batch_size=1)
    for one, other in zip(alone, timed, strict=True):
        assert (one.text, one.tokens) == (other.text, other.tokens)
        pairs = zip(one.words or (), other.words or (), strict=True)
        assert all(abs(a.start - b.start) < 1e-3 for a, b in pairs)


def test_times_are_given_only_where_asked_for_and_of_one_clip(
    spoken: list[tuple[Clip, Speech]], timed: list[Result]
) -> None:
    (clip, _), (other, _) = spoken[:2]
    found = answers([asked(clip, ASK, word_times=False), asked(clip, other, ASK), asked("Hello?")], batch_size=8)
    assert [result.words for result in found] == [None, None, None]
    assert replace(found[0], words=timed[0].words) == timed[0]


def test_a_stream_ends_with_the_same_times(spoken: list[tuple[Clip, Speech]], timed: list[Result]) -> None:
    ends: list[Result] = []
    with LocalEngine(resolve("demo"), device="cpu") as engine:

        def streamed() -> Iterator[str]:
            ends.append((yield from engine.stream(asked(spoken[0][0], ASK))))

        text = "".join(streamed())
    assert text == ends[0].text == timed[0].text
    starts = [word.start for word in ends[0].words or ()]
    assert starts == pytest.approx([word.start for word in timed[0].words or ()], abs=1e-3)


def test_echo_spreads_its_words() -> None:
    engine = EchoEngine()
    engine.submit(asked(NOWHERE, "One two."))
    engine.submit(asked(NOWHERE, "One two.", word_times=False))
    first, second = (result for _, result in engine.poll())
    assert isinstance(first, Result)
    assert isinstance(second, Result)
    assert [word.word for word in first.words or ()] == first.text.split()
    assert first.words[-1].end == pytest.approx(1.0)  # type: ignore[index]
    assert second.words is None


@pytest.mark.parametrize(("frames", "timed"), [(4000, True), (4008, False)])
def test_clips_of_up_to_40_seconds_are_timed(demo: Model, frames: int, timed: bool) -> None:
    sound = 12 + 3 * torch.randn(frames, 80, generator=torch.Generator().manual_seed(1))
    prompt = compose(demo, render((Message("user", (NOWHERE, ASK)),)), [sound], Sampling(3))
    [result] = generate(demo, [replace(prompt, word_times=True)])
    assert result.text
    assert (result.words is not None) is timed


def test_segments_take_the_words_that_are_those_of_their_text() -> None:
    chunk = Chunk(10.0, 14.0, (Region(10.2, 11.5), Region(12.5, 13.8)))
    found = tuple(Word(start, start, word) for start, word in ((0.0, "One"), (0.9, "two."), (2.4, "Three.")))
    first, second = hearing.segments([Answer(chunk, "One two. Three.", found)])
    assert [(word.start, word.end) for word in first.words or ()] == [(10.2, 10.9), (10.9, 11.5)]
    assert (second.id, second.start, second.end, second.text) == (1, 12.5, 13.8, "Three.")
    mended = hearing.segments([Answer(chunk, "One. Three.", found)])
    assert mended == hearing.segments([Answer(chunk, "One. Three.", None)])
    assert [(segment.start, segment.end) for segment in mended] == [(10.2, 11.5), (12.5, 13.8)]
    assert hearing.segments([Answer(chunk, "", None), Answer(chunk, "", ())]) == ()


# ------------------------------------------------------------------------------------------------ attention


def test_what_is_met_is_the_attention_of_the_model(monkeypatch: pytest.MonkeyPatch, tiny_folder: Path) -> None:
    """Against the weights that transformers' eager attention returns, for every head of two rows of unlike length."""
    model = load(resolve(str(tiny_folder)), torch.device("cpu"), torch.float32)
    monkeypatch.setattr(align, "MOST_HEADS", 100)
    rows, answer = [], (300, 301, 302, 303)
    for frames in (100, 230):
        sound = 12 + 3 * torch.randn(frames, 80, generator=torch.Generator().manual_seed(frames))
        prompt = compose(model, render((Message("user", (NOWHERE, ASK)),)), [sound], Sampling(5))
        rows.append(row(model, prompt, answer))
    with torch.inference_mode():
        looks = align._read(model, rows)
        model.network.set_attn_implementation("eager")
        for answered, look in zip(rows, looks, strict=True):
            output = model.network(inputs_embeds=answered.inputs[None], output_attentions=True)
            end = len(answered.inputs) - 1
            heads = torch.cat(output.attentions, dim=1)[0, :, end - len(answer) : end, answered.heard]
            heads = heads / heads.sum(-1, keepdim=True)
            difference = (look.weights[:, None] - heads).abs().amax((2, 3))  # of each that was met and each head
            assert difference.amin(0).max() < 1e-5
            assert difference.argmin(0).unique().numel() == len(heads) == len(look.weights)
            torch.testing.assert_close(look.scores, align._scores(look.weights))


def row(model: Model, prompt: Prompt, answer: tuple[int, ...]) -> Answered:
    """The prompt with noise in place of its sound, and an answer."""
    ids = torch.tensor([*prompt.ids, *answer])
    inputs = model.network.model.embed_tokens(ids)
    places = (ids == model.audio_token).nonzero()[:, 0]
    inputs[places] = torch.randn(len(places), inputs.shape[1], generator=torch.Generator().manual_seed(1))
    return Answered(inputs, slice(int(places[0]), int(places[-1]) + 1), answer)


def head(tokens: int, heard: int, at: Sequence[float], width: float = 1.0) -> Tensor:
    """A head that looks at `at`, in audio tokens, for each token."""
    places = torch.arange(heard)
    return torch.stack([torch.softmax(-((places - at[token]) ** 2) / width, 0) for token in range(tokens)])


def test_heads_that_follow_the_sound_score_best() -> None:
    forward = [2.0 + 4 * token for token in range(10)]
    heads = {
        "sharp": head(10, 50, forward),
        "blurred": head(10, 50, forward, width=100.0),
        "backward": head(10, 50, forward[::-1]),
        "one place": head(10, 50, [3.0] * 10),
        "everywhere": torch.full((10, 50), 1 / 50),
        "anywhere": head(10, 50, [40, 3, 27, 8, 44, 1, 30, 12, 25, 6]),
    }
    scores = dict(zip(heads, align._scores(torch.stack(list(heads.values()))).tolist(), strict=True))
    assert scores["sharp"] > 2 * scores["blurred"] > 4 * scores["anywhere"]
    assert max(scores["backward"], scores["one place"], scores["everywhere"]) < 0.01


def test_peaks_never_go_back_and_lie_between_audio_tokens() -> None:
    weights = head(5, 40, [3.0, 9.5, 30.0, 15.0, 22.0])  # the third token is taken for a later one
    found = align._peaks(align._Look(torch.ones(1), weights[None]))
    assert found == sorted(found)
    assert found[:2] == pytest.approx([3.0, 9.5], abs=0.1)
    assert found[3:] == pytest.approx([15.0, 22.0], abs=0.1)


# ------------------------------------------------------------------------------------------------ words of tokens


def test_words_begin_with_the_token_that_they_begin_in(demo: Model) -> None:
    text = " Ça alors, 東京 naïve €5! Été."
    tokens = demo.tokenizer.encode(text, add_special_tokens=False).ids
    found = list(align._words(demo, tokens, [float(place) for place in range(len(tokens))], 99.0))
    assert [word.word for word in found] == timing.words(text) == ["Ça", "alors,", "東", "京", "naïve", "€5!", "Été."]
    for word in found:
        before = demo.tokenizer.decode(tokens[: int(word.start)], skip_special_tokens=False)
        through = demo.tokenizer.decode(tokens[: int(word.start) + 1], skip_special_tokens=False)
        # The token makes the word's first character, or the first of its bytes.
        assert len(before.split(word.word[0])) < len(through.split(word.word[0])) or "\ufffd" in through
        assert "\ufffd" not in before
    assert [word.end for word in found] == [word.start for word in found[1:]] + [99.0]


def test_only_the_transcript_before_a_translation_is_timed(demo: Model) -> None:
    def ids(text: str) -> list[int]:
        return demo.tokenizer.encode(text, add_special_tokens=False).ids

    tokens = align.transcript(demo, [*ids("Good morning."), *ids("<sep> Bonjour.")])
    assert demo.tokenizer.decode(list(tokens)).strip() == "Good morning."
    assert align.transcript(demo, ids("Good morning.")) == tuple(ids("Good morning."))
    assert align.transcript(demo, ids("<sep>Bonjour.")) == ()


def test_a_single_token_is_timed_and_no_answer_is_no_words(tiny: Model) -> None:
    sound = 12 + 3 * torch.randn(60, 80, generator=torch.Generator().manual_seed(1))
    prompt = compose(tiny, render((Message("user", (NOWHERE, ASK)),)), [sound], Sampling(5))
    (letter,) = tiny.tokenizer.encode("a", add_special_tokens=False).ids
    with torch.inference_mode():
        [[word]] = align.word_times(tiny, [row(tiny, prompt, (letter,))])
    assert word.word == "a"
    assert 0 <= word.start < word.end == pytest.approx(0.64)
    assert align.word_times(tiny, []) == []
