"""What a question of the exam is, and the studio that makes its recordings and pictures."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from phi4mm_cli.demo.world import sentences
from phi4mm_cli.demo.world.conversations import Conversation
from phi4mm_cli.demo.world.lexicon import LANGUAGES, Language, Phrase
from phi4mm_cli.demo.world.speakers import Speaker
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import transcribe
from phi4mm_cli.media import audio
from phi4mm_cli.schema import Clip, Message, Request, Sampling, Source

RATE = 16000  # Hz
BUDGET = 400  # tokens
SWITCH = 4096  # tokens, where LongRoPE's long factors begin
FILM_SECONDS, FILM_RATE, FILM_BITS = 20, 3, 4_000_000  # seconds, frames and bits a second
BEYOND = 335.0  # seconds of silence that take more than 4,096 tokens
TURNS_BEYOND = 330  # of small talk, which do so too
Samples = NDArray[np.float32]
Measure = Literal["word error rate", "character error rate", "chrF", "exact"]


@dataclass(frozen=True, slots=True)
class Case:
    """One question to the program: how it is asked, and the answer that is right."""

    ask: Callable[[], Flow[str]]
    expected: str


@dataclass(frozen=True, slots=True)
class Skill:
    """A row of the card."""

    name: str
    measure: Measure
    target: float | None  # percent
    cases: Callable[[Studio, bool], Iterator[Case]]  # endless; True: all past 4,096 tokens


# ------------------------------------------------------------------------------------------------ asking


def asked(messages: Conversation, offered: str | None = None, *, beyond: bool = False) -> Flow[str]:
    """The model's answer to one request. Raises ValueError where it should be `beyond` 4,096 tokens, and is not."""
    request = Request(messages, Sampling(max_new_tokens=BUDGET), offered)
    (result,) = yield [request]
    if beyond and result.prompt_tokens <= SWITCH:
        raise ValueError(f"a prompt of only {result.prompt_tokens} tokens")
    return result.text


def transcribed(path: Path, language: Language) -> Flow[str]:
    """The text that `phi4mm transcribe` writes for a recording."""
    body = yield from transcribe.flow(audio.source(path), transcribe.Options(language))
    return body.text


class Studio:
    """Makes recordings in a folder, from one seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng, self._folder, self._count = random.Random(seed), folder, 0
        self.noise = np.random.default_rng(seed)

    def sentences(self, most_seconds: float = 28.0) -> list[Phrase]:
        """New sentences, as many as fit into a clip of a random length."""
        wanted = self.rng.uniform(1, most_seconds)
        chosen = [self.sentence()]
        while 3.2 * (len(chosen) + 1) < wanted:
            chosen.append(self.sentence())
        return chosen

    def sentence(self) -> Phrase:
        """A sentence that training leaves out."""
        while not sentences.held_out((phrase := sentences.sentence(self.rng))["en"]):
            pass
        return phrase

    def record(
        self,
        texts: Sequence[str],
        language: Language = "en",
        *,
        unseen: bool = False,
        snr_db: float | None = None,
        beyond: bool = False,
    ) -> Path:
        """One voice that says the texts, after a silence of more than 4,096 tokens where `beyond`."""
        speaker = Speaker(self.rng, language, unseen)
        parts: list[Samples] = [np.zeros(int(RATE * (BEYOND if beyond else self.rng.uniform(0.1, 0.5))), np.float32)]
        for text in texts:
            speech = speaker.say(text)
            parts += [speech.samples, np.zeros(int(RATE * self.rng.uniform(0.2, 0.9)), np.float32)]
        samples = np.concatenate(parts)
        samples *= np.float32(10 ** self.rng.uniform(-0.8, 0))
        if snr_db is not None:
            voiced = samples[np.abs(samples) > 1e-3]
            scale = np.sqrt(np.mean(voiced**2)) * 10 ** (-snr_db / 20)
            samples += self.noise.normal(0, scale, samples.size).astype(np.float32)
        return self.write(samples)

    def write(self, samples: Samples) -> Path:
        """A new recording of the samples."""
        self._count += 1
        path = self._folder / f"{self._count}.wav"
        soundfile.write(path, np.clip(samples, -1, 1), RATE)
        return path

    def picture(self, image: Image.Image) -> Source:
        """A new file of the picture."""
        self._count += 1
        path = self._folder / f"{self._count}.png"
        image.save(path)
        return audio.source(path)

    def film(self, images: Sequence[Image.Image]) -> Source:
        """A new video, which shows the pictures one after another."""
        self._count += 1
        path = self._folder / f"{self._count}.mp4"
        with av.open(path, "w") as video:
            stream = video.add_stream("mpeg4", rate=FILM_RATE)
            stream.width, stream.height = images[0].size
            stream.bit_rate = FILM_BITS
            count = FILM_SECONDS * FILM_RATE
            for number in range(count):
                shown = images[number * len(images) // count]
                frame = av.VideoFrame.from_ndarray(np.asarray(shown.convert("RGB")), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, FILM_RATE)
                video.mux(stream.encode(frame))
            video.mux(stream.encode(None))
        return audio.source(path)

    def clip(self, path: Path) -> Clip:
        """A recording as a whole."""
        info = soundfile.info(path)
        return Clip(audio.source(path), 0.0, info.frames / info.samplerate)

    def target(self, language: Language) -> Language:
        """Another language."""
        return self.rng.choice([code for code in LANGUAGES if code != language])


def heard(path: Path, studio: Studio, instruction: str, system: Sequence[Message] = ()) -> Conversation:
    """A recording, and what is asked about it in writing, "" for nothing."""
    parts = (studio.clip(path), instruction) if instruction else (studio.clip(path),)
    return (*system, Message("user", parts))
