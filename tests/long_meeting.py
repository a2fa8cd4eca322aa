"""Makes meetings of any length whose words and times are known, and counts what of them is in a transcript.

Several voices take turns; between them are pauses, long silences, music and noise; there is soft noise throughout.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile
from numpy.typing import NDArray
from start_errors import errors

from phi4mm_cli.demo import meeting
from phi4mm_cli.demo.voice import Speech, speak
from phi4mm_cli.demo.world import noises, sentences
from phi4mm_cli.demo.world.speakers import Speaker
from phi4mm_cli.outputs import Segment
from phi4mm_cli.schema import Word

RATE = 16000  # Hz
LOUDNESS = 0.08  # root mean square of a sentence
NOISE_DB = -30.0  # of what is heard throughout, beside the speech
INTERLUDES = ("silence", "melody", "chords", "pink", "crackle")
TURNS_BETWEEN = 8  # turns between interludes
AROUND = 0.15  # seconds beside a sentence that is heard alone
Samples = NDArray[np.float32]
Say = Callable[[], tuple[str, Speech]]


@dataclass(frozen=True, slots=True)
class Sentence:
    """What was said and when, in seconds."""

    text: str
    start: float
    end: float
    words: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What of a meeting is in its transcript."""

    sentences: int
    lost: int  # sentences of which less than half of the words were written
    doubled: int  # places where three words or more in a row were written that nobody said
    word_errors: float  # share


def voices(rng: random.Random, world: bool) -> Sequence[Say]:
    """The people at the table: of the demo's world, or those of the sample meeting with its sentences."""
    if world:
        speakers = [Speaker(rng, "en") for _ in range(5)]

        def of_world(speaker: Speaker) -> tuple[str, Speech]:
            text = sentences.sentence(rng)["en"]
            return text, speaker.say(text)

        return [lambda speaker=speaker: of_world(speaker) for speaker in speakers]  # type: ignore[misc]
    by_voice = {voice: [text for name, text in meeting.MEETING if name == voice] for voice in meeting.VOICES}

    def of_sample(voice: str) -> tuple[str, Speech]:
        text = rng.choice(by_voice[voice])
        name, pace = meeting.VOICES[voice]
        return text, speak(text, voice=name, rate_wpm=pace)

    return [lambda voice=voice: of_sample(voice) for voice in by_voice]  # type: ignore[misc]


def make(path: Path, seconds: float, seed: int = 1, world: bool = False) -> list[Sentence]:
    """Write a meeting of at least `seconds` as FLAC, in pieces, and tell what is said in it."""
    rng, said, count = random.Random(seed), [], 0
    background = np.random.default_rng(seed)
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        for samples, sentence in _pieces(rng, background, voices(rng, world)):
            if sentence is not None:
                at = count / RATE
                words = tuple((word.text, at + word.start, at + word.end) for word in sentence[1].words)
                said.append(Sentence(sentence[0], words[0][1], words[-1][2], words))
            noise = background.normal(0.0, LOUDNESS * 10 ** (NOISE_DB / 20), samples.size).astype(np.float32)
            file.write(samples + noise)
            count += samples.size
            if count >= seconds * RATE and sentence is None:
                return said
    raise AssertionError("meetings have no end of their own")


def _pieces(
    rng: random.Random, background: np.random.Generator, people: Sequence[Say]
) -> Iterator[tuple[Samples, tuple[str, Speech] | None]]:
    while True:
        for _ in range(TURNS_BETWEEN):
            say = rng.choice(people)
            for _ in range(rng.randint(1, 4)):
                text, speech = say()
                loudness = np.sqrt(np.mean(np.square(speech.samples)))
                yield speech.samples * np.float32(LOUDNESS / loudness), (text, speech)
                yield _silence(rng.uniform(0.3, 1.2)), None
            yield _silence(rng.uniform(0.2, 2.0)), None
        kind, length = rng.choice(INTERLUDES), rng.uniform(4.0, 25.0)
        yield (_silence(length) if kind == "silence" else 0.3 * noises.wave(kind, length, background)), None
        yield _silence(1.0), None


def _silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * RATE), np.float32)


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def compare(said: Sequence[Sentence], text: str) -> Counts:
    """Align the transcript with what was said, word by word."""
    reference = [word for sentence in said for word in words(sentence.text)]
    owner = [number for number, sentence in enumerate(said) for _ in words(sentence.text)]
    found = jiwer.process_words(" ".join(reference), " ".join(words(text)))
    hits = [0] * len(said)
    doubled = 0
    for part in found.alignments[0]:
        if part.type == "equal":
            for place in range(part.ref_start_idx, part.ref_end_idx):
                hits[owner[place]] += 1
        elif part.type == "insert" and part.hyp_end_idx - part.hyp_start_idx >= 3:
            doubled += 1
    lost = sum(hit < len(words(sentence.text)) / 2 for hit, sentence in zip(hits, said, strict=True))
    return Counts(len(said), lost, doubled, found.wer)


def transcribe(path: Path, *arguments: str) -> tuple[dict[str, Any], int]:
    """The JSON of `phi4mm transcribe`, beside which its captions lie, and the peak of its memory in bytes."""
    folder = path.with_suffix("")
    wanted = ["-o", str(folder), "--force", "--overwrite", "-f", "json,srt,vtt", "--word-timestamps", "-q"]
    process = subprocess.Popen([sys.executable, "-m", "phi4mm_cli", "transcribe", str(path), *wanted, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    unit = 1 if sys.platform == "darwin" else 1024
    result = json.loads((folder / path.with_suffix(".json").name).read_text(encoding="utf-8"))
    return result, usage.ru_maxrss * unit


def alone(path: Path, said: Sequence[Sentence], count: int, *arguments: str) -> float:
    """The share of word errors of `count` sentences of a meeting, each of which is a recording of its own."""
    folder = path.with_suffix(".alone")
    folder.mkdir(exist_ok=True)
    chosen = dict(enumerate(said[:: max(1, len(said) // count)][:count]))
    for number, sentence in chosen.items():
        first, last = round(RATE * max(0.0, sentence.start - AROUND)), round(RATE * (sentence.end + AROUND))
        samples, _ = soundfile.read(path, start=first, stop=last, dtype="float32")
        soundfile.write(folder / f"{number}.wav", samples, RATE)
    command = [sys.executable, "-m", "phi4mm_cli", "transcribe", str(folder), "--jsonl", "-q", *arguments]
    run = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    texts = {int(Path(result["source"]).stem): result["text"] for result in map(json.loads, run.stdout.splitlines())}
    spoken, written = (
        [" ".join(words(text)) for text in side]
        for side in (
            (sentence.text for sentence in chosen.values()),
            (texts[number] for number in chosen),
        )
    )
    return float(jiwer.wer(spoken, written))


def start_errors(said: Sequence[Sentence], result: dict[str, Any]) -> list[float]:
    """Seconds that captions begin too late (or, below 0, too early), where their first word is known."""
    known = [Word(start, end, word) for sentence in said for word, start, end in sentence.words]
    segments = [
        Segment(one["id"], one["start"], one["end"], one["text"], tuple(Word(**word) for word in one["words"]))
        for one in result["segments"]
    ]
    return [seconds for what, seconds in errors(segments, known) if what == "caption"]
