"""How far off the times of words and captions are, by several ways to find them, on speech whose times are known.

    python benchmarks/timing.py [--model demo] [--chunk-seconds 5 15] [--recordings 4] [--ways settled dtw]

Sentences of the sample meeting are spoken anew, with pauses between them and inside them, close together, and in
noise. All ways time the same answers of the model, those that `phi4mm transcribe` keeps without a fault, and a word has
its truth in the chunk that it was heard in:

    even pace       text is spread over the stretches in which voices are heard: no model
    attention       where the decoder looks, as the engine finds it
    settled         the same, put right by where voices begin and pause: what phi4mm does
    settled, late   the same, had it been found 0.24 s too late: how much hangs on where exactly a model looks
    dtw             as openai/whisper does: all heads, standardised, dynamic time warping; then settled
    hiding          the sound is hidden 0.16 s at a time, and the tokens that suffer were said there; then settled

An error is how far a start is from the truth. Words that were not recognised, or not beside another one that was, have
none. Captions are those of `--srt`. Cost is time on top of what the answers take.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from phi4mm_cli import hearing
from phi4mm_cli.demo.meeting import LOUDNESS, MEETING, RATE, VOICES
from phi4mm_cli.demo.voice import speak
from phi4mm_cli.demo.world.noises import wave
from phi4mm_cli.driver import run
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.flows.transcribe import PROMPT
from phi4mm_cli.hearing import Answer, Listening, Question
from phi4mm_cli.jobs import Job
from phi4mm_cli.media import audio
from phi4mm_cli.media.speech import Chunk
from phi4mm_cli.model import align, composing, generate
from phi4mm_cli.model.align import Answered
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.features import log_mel
from phi4mm_cli.model.loading import Model
from phi4mm_cli.prompt import render
from phi4mm_cli.schema import Clip, Message, Result, Sampling, Source, Word

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from start_errors import errors

Sound = NDArray[np.float32]
HIDDEN = 2  # audio tokens that are hidden together
LATE = 0.24  # seconds
BATCH = 16


@dataclass(frozen=True)
class Condition:
    """How sentences follow each other."""

    pauses: tuple[float, float]  # seconds between sentences
    broken: float = 0.0  # share of the words inside a sentence that a pause of 0.2 to 0.9 s comes before
    noise: tuple[str, float] = ("white", -30.0)  # and how many dB it is above the speech


CONDITIONS = {
    "clean": Condition((0.4, 1.4)),
    "close": Condition((0.03, 0.3)),
    "pauses": Condition((0.3, 2.0), broken=0.12),
    "noise": Condition((0.2, 1.0), noise=("pink", -12.0)),
}


def recording(condition: Condition, sentences: int, seed: int) -> tuple[Sound, list[Word]]:
    """Sound, and the words in it; what begins a sentence ends in no full stop before it."""
    rng = random.Random(seed)
    parts, words, length = [np.zeros(RATE // 2, np.float32)], [], RATE // 2
    for _ in range(sentences):
        text = rng.choice(MEETING)[1]
        voice, pace = rng.choice(list(VOICES.values()))
        spoken = speak(text, voice=voice, rate_wpm=pace, seed=rng.randint(1, 10**6))
        samples = spoken.samples * np.float32(LOUDNESS / np.sqrt(np.mean(np.square(spoken.samples))))
        at = 0
        for before, word in zip([None, *spoken.words], spoken.words, strict=False):
            if before is not None and rng.random() < condition.broken:
                cut = round(RATE * (before.end + word.start) / 2)
                parts += [samples[at:cut], np.zeros(round(RATE * rng.uniform(0.2, 0.9)), np.float32)]
                length, at = length + len(parts[-2]) + len(parts[-1]), cut
            begin = (length - at) / RATE
            words.append(Word(begin + word.start, begin + word.end, word.text))
        parts += [samples[at:], np.zeros(round(RATE * rng.uniform(*condition.pauses)), np.float32)]
        length += len(parts[-2]) + len(parts[-1])
    sound = np.concatenate(parts)
    kind, level = condition.noise
    noise = wave(kind, len(sound) / RATE + 1, np.random.default_rng(seed))[: len(sound)]
    return sound + noise * np.float32(LOUDNESS * 10 ** (level / 20) / np.sqrt(np.mean(np.square(noise)))), words


# ------------------------------------------------------------------------------------------------ ways to find times


@dataclass(frozen=True)
class Heard:
    """A chunk and its answer, with what the ways need."""

    chunk: Chunk
    result: Result
    row: Answered


def kept(engine: LocalEngine, source: Source, longest: float) -> dict[Chunk, str]:
    """The chunks, or parts of them, whose answers can be trusted once the bad ones were asked for again."""
    question, how = Question(PROMPT, word_times=True), Listening(longest)
    [outcome] = run([Job("recording", lambda: hearing.hear(source, question, how))], engine)
    assert outcome.value is not None
    return {answer.chunk: answer.text for answer in outcome.value.answers if answer.text and not answer.faults}


def listen(model: Model, source: Source, trusted: dict[Chunk, str]) -> tuple[list[Heard], dict[str, float]]:
    """The answers to the chunks of a recording, and the seconds that they take, without times and for these alone."""
    chunks, prompts = list(trusted), []
    for chunk in chunks:
        clip = Clip(source, chunk.start, chunk.end)
        pieces = render((Message("user", (clip, PROMPT)),))
        sampling = Sampling(16 + round(10 * (chunk.end - chunk.start)))
        prompts.append(composing.compose(model, pieces, [log_mel(*audio.read(clip))], sampling))
    took, heard = {"answers": 0.0, "settled": 0.0}, []
    for first in range(0, len(prompts), BATCH):
        group, asked = chunks[first : first + BATCH], prompts[first : first + BATCH]
        began = time.perf_counter()
        results = generate.generate(model, asked)
        took["answers"] += time.perf_counter() - began
        inputs = generate._embed(model, asked)
        began = time.perf_counter()
        results = generate._timed(model, [replace(prompt, word_times=True) for prompt in asked], inputs, results)
        took["settled"] += time.perf_counter() - began
        for chunk, prompt, embedded, result in zip(group, asked, inputs, results, strict=True):
            if result.words and result.text == trusted[chunk]:  # not one that only other ways of asking gave
                heard.append(Heard(chunk, result, answered(model, prompt, embedded, result)))
    return heard, took


@torch.inference_mode()
def answered(model: Model, prompt: composing.Prompt, embedded: Tensor, result: Result) -> Answered:
    """The answer behind its prompt, as the engine has it."""
    tokens = torch.tensor(result.tokens, device=model.device)
    first = prompt.ids.index(model.audio_token)
    places = slice(first, first + prompt.ids.count(model.audio_token))
    return Answered(torch.cat((embedded, model.network.model.embed_tokens(tokens))), places, result.tokens)


def words_at(model: Model, one: Heard, places: Sequence[float]) -> list[Word]:
    """The words, where each token is said at one of `places` in the sound, in audio tokens."""
    seconds = [max(0.0, align.TOKEN_SECONDS * place + align.BEGIN) for place in places]
    end = one.chunk.end - one.chunk.start
    return list(align._words(model, one.row.tokens, seconds, end))


@torch.inference_mode()
def warped(model: Model, one: Heard) -> list[Word]:
    """As openai/whisper: standardised over the tokens, the mean of all heads, dynamic time warping."""
    most, align.MOST_HEADS = align.MOST_HEADS, 10**6
    weights = align._read(model, [one.row])[0].weights
    align.MOST_HEADS = most
    weights = (weights - weights.mean(1, keepdim=True)) / (weights.std(1, keepdim=True, correction=0) + 1e-9)
    gain = weights.mean(0).double().cpu().numpy()
    tokens, heard = gain.shape
    total = np.full((tokens + 1, heard + 1), -np.inf)
    total[0, 0] = 0.0
    for i, j in np.ndindex(tokens, heard):
        total[i + 1, j + 1] = gain[i, j] + max(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j, first = tokens, heard, [0.0] * tokens
    while i and j:
        first[i - 1] = j - 1.0
        i, j = max(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda place: total[place])
    return words_at(model, one, [place + 0.5 for place in first])  # a frame's beginning is meant


@torch.inference_mode()
def hiding(model: Model, one: Heard) -> list[Word]:
    """Where the tokens are said whose probability falls when that part of the sound cannot be attended to."""
    row, size = one.row, len(one.row.inputs)
    heard, count = row.heard, len(row.tokens)
    targets = torch.tensor(row.tokens, device=model.device)
    causal = torch.ones(size, size, dtype=torch.bool, device=model.device).tril()
    parts = [None, *range(heard.start, heard.stop, HIDDEN)]  # None hides nothing
    rows = []
    for begin in range(0, len(parts), 8):
        group = parts[begin : begin + 8]
        masks = causal.repeat(len(group), 1, 1, 1)
        for mask, start in zip(masks, group, strict=True):
            if start is not None:
                mask[:, start + HIDDEN :, start : start + HIDDEN] = False
        hidden = model.network.model(
            inputs_embeds=row.inputs.expand(len(group), -1, -1), attention_mask=masks, use_cache=False
        ).last_hidden_state[:, size - 1 - count : size - 1]
        scores = model.network.lm_head(hidden).float().log_softmax(-1)
        rows.append(scores.gather(2, targets.expand(len(group), -1)[..., None])[..., 0])
    scores = torch.cat(rows)
    loss = (scores[0] - scores[1:]).clamp(min=0).T.repeat_interleave(HIDDEN, 1)[:, : heard.stop - heard.start] + 1e-3
    look = align._Look(torch.ones(1), (loss / loss.sum(1, keepdim=True))[None])
    return words_at(model, one, align._peaks(look))


def late(model: Model, one: Heard) -> list[Word]:
    """What the engine finds, moved."""
    return [replace(word, start=word.start + LATE, end=word.end + LATE) for word in one.result.words or ()]


def even(model: Model, one: Heard) -> list[Word]:
    """No model: answers without times are what the flow spreads."""
    return []


WAYS: dict[str, Callable[[Model, Heard], list[Word]]] = {
    "even pace": even,
    "attention": lambda model, one: list(one.result.words or ()),
    "settled": lambda model, one: list(one.result.words or ()),
    "settled, late": late,
    "dtw": warped,
    "hiding": hiding,
}


def answer(way: str, one: Heard, words: list[Word]) -> Answer:
    """What the flow makes segments of; "attention" alone hides where voices begin and pause."""
    chunk = replace(one.chunk, speech=()) if way == "attention" else one.chunk
    return Answer(chunk, one.result.text, tuple(words) or None)


# ------------------------------------------------------------------------------------------------ errors


def row(label: str, found: Sequence[float]) -> str:
    """Milliseconds: median, 95th percentile, largest."""
    off = 1000 * np.abs(found)
    return f"{label:44}{len(off):7}{np.median(off):8.0f}{np.quantile(off, 0.95):8.0f}{off.max():8.0f}"


def main() -> None:
    """Listen to every condition at every length of chunks, and print a table for each length."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="demo")
    parser.add_argument("--chunk-seconds", type=float, nargs="*")
    parser.add_argument("--recordings", type=int, default=4)
    parser.add_argument("--sentences", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS], help="hiding takes by far the longest")
    asked = parser.parse_args()
    checkpoint = resolve(asked.model)
    with LocalEngine(checkpoint, asked.device) as engine:
        for longest in asked.chunk_seconds or [checkpoint.profile.max_chunk_seconds]:
            measure(engine, asked.model, longest, asked.recordings, asked.sentences, asked.ways)


def measure(
    engine: LocalEngine, name: str, longest: float, recordings: int, sentences: int, ways: Sequence[str]
) -> None:
    """One table."""
    model = engine._loaded()
    found: dict[tuple[str, str, str], list[float]] = {}
    took: dict[str, float] = {}
    told = recognised = 0
    with tempfile.TemporaryDirectory() as folder:
        for kind, condition in CONDITIONS.items():
            for number in range(recordings):
                sound, known = recording(condition, sentences, number)
                path = Path(folder, f"{kind}{number}.wav")
                soundfile.write(path, sound, RATE)
                source = audio.source(path)
                trusted = kept(engine, source, longest)
                heard, spent = listen(model, source, trusted)
                within = [(one.chunk.start, one.chunk.end) for one in heard]
                for way in ways:
                    began = time.perf_counter()
                    answers = [answer(way, one, WAYS[way](model, one)) for one in heard]
                    if way in ("dtw", "hiding"):
                        spent[way] = time.perf_counter() - began
                    for what, error in errors(hearing.segments(answers), known, within):
                        for group in (kind, "all"):
                            found.setdefault((what, group, way), []).append(error)
                for step, seconds in spent.items():
                    took[step] = took.get(step, 0.0) + seconds
                told += len(known)
    recognised = len(found["word", "all", ways[0]])
    print(f"\n{name}, chunks of at most {longest:g} s: {recognised / told:.0%} of {told} words recognised\n")
    print(f"{'milliseconds':44}{'n':>7}{'median':>8}{'95 %':>8}{'largest':>8}")
    order = {key: place for place, key in enumerate([*CONDITIONS, "all", *WAYS])}
    for _, keys in groupby(sorted(found, key=lambda key: (key[0], order[key[1]], order[key[2]])), lambda key: key[:2]):
        for what, kind, way in keys:
            print(row(f"{what:9}{kind:8}{way}", found[what, kind, way]))
    print(f"\nthe answers took {took['answers']:.1f} s; their times, on top of that:")
    for way in took.keys() - {"answers"}:
        print(f"  {way:12}{took[way] / took['answers']:8.1%}")


if __name__ == "__main__":
    main()
