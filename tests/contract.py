"""The requests that all engines must answer alike, and what is compared of the answers."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.media import audio
from phi4mm_cli.schema import Clip, Message, Part, Picture, Reply, Request, Result, Sampling

Outcome = Result | RequestError

TOOLS = '[{"name": "weather", "description": "Of a city.", "parameters": {"city": {"type": "str"}}}]'
CALL = '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]<|/tool_call|>'


def asked(*parts: Part, budget: int = 12, **settings: float) -> Request:
    return Request((Message("user", parts),), Sampling(budget, **settings))  # type: ignore[arg-type]


def talk(*turns: tuple[str, Part], tools: str | None = None) -> Request:
    messages = tuple(Message(role, (part,) if isinstance(part, (str, Reply)) else part) for role, part in turns)  # type: ignore[arg-type]
    return Request(messages, Sampling(12), tools)


def all_requests(folder: Path) -> dict[str, Request]:
    """More than thirty of them, by what is special about each; their media go into `folder`."""
    return texts() | sounds(folder) | sights(folder) | tools()


def texts() -> dict[str, Request]:
    hot = {"temperature": 0.9, "top_p": 0.8, "seed": 11}
    return {
        "text": asked("Where is the letter?"),
        "two turns": talk(("user", "Hello."), ("assistant", "Hi."), ("user", "Where is the letter?")),
        "a system": talk(("system", "Be brief."), ("user", "Where is it?")),
        "control tokens": asked("a <|end|><|assistant|> b <|audio_1|> c"),
        "other scripts": asked("  Où est-elle? 手紙はどこ 🙂\n\n"),
        "an answer": talk(("user", "a"), ("assistant", Reply("so", (40, 41))), ("user", "b")),
        "drawn by chance": asked("Where is the letter?", **hot),
        "without repeats": asked("a a a a", budget=30, no_repeat_ngram_size=2, repetition_penalty=1.3),
        "beams": asked("Where is the letter?", num_beams=3),
        "past the switch": asked("a " * 4090, budget=40),
    }


def sounds(folder: Path) -> dict[str, Request]:
    meeting = audio.source(SAMPLES / "meeting.flac")
    samples, rate = soundfile.read(meeting.path, dtype="float32")
    soundfile.write(folder / "phone.wav", samples[: 2 * rate : rate // 8000], 8000)
    both = np.stack([samples[: 3 * rate], samples[3 * rate : 6 * rate]], 1)
    soundfile.write(folder / "stereo.wav", both, rate, subtype="FLOAT")
    stereo, ask = audio.source(folder / "stereo.wav"), "Transcribe the audio clip into text."
    first, second = Clip(meeting, 0.5, 3.25), Clip(meeting, 5.0, 6.0)
    timed = asked(first, ask)
    return {
        "a clip": asked(first, ask),
        "another clip": asked(second, ask),
        "words with times": Request(timed.messages, Sampling(13), word_times=True),
        "telephone": asked(Clip(audio.source(folder / "phone.wav"), 0.0, 1.5), ask),
        "a channel": asked(Clip(stereo, 0.1, 2.0, channel=2), ask),
        "mixed down": asked(Clip(stereo, 0.1, 2.0), ask),
        "a clip, and the name of one": asked("What is <|audio_1|>? ", second),
        "two clips": asked(first, second, "Which is longer?"),
        "the clip last": asked("Listen: ", second),
        "a clip alone": asked(second),
    }


def sights(folder: Path) -> dict[str, Request]:
    random = np.random.default_rng(4)
    image = Image.fromarray(random.integers(0, 255, (300, 500, 3), dtype=np.uint8))
    image.save(folder / "plain.png")
    image.resize((448, 448)).save(folder / "square.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(folder / "turned.jpg", exif=exif)
    image.save(folder / "pages.tiff", save_all=True, append_images=[image.rotate(180)])
    plain, turned, pages = (audio.source(folder / name) for name in ("plain.png", "turned.jpg", "pages.tiff"))
    clip = Clip(audio.source(SAMPLES / "meeting.flac"), 1.0, 2.0)
    shown, ask = Picture(plain), "What is shown in this image?"
    return {
        "a picture": asked(shown, ask),
        "a picture of whole crops": asked(Picture(audio.source(folder / "square.png")), ask),
        "turned": asked(Picture(turned), ask),
        "the second page": asked(Picture(pages, page=2), ask),
        "a band": asked(Picture(plain, size=(448, 896), band=(100, 548)), ask),
        "one crop": asked(Picture(plain, most_crops=1), ask),
        "two pictures": asked(shown, Picture(turned), "Which is turned?"),
        "both": asked(shown, clip),
        "both and words": asked(shown, clip, "Is it so?"),
        "sound, then sight": talk(("user", (clip, "And this?")), ("assistant", "Yes."), ("user", (shown, "So?"))),
    }


def tools() -> dict[str, Request]:
    quoting = Reply(f"In it stands {CALL}.", ())
    again = (("assistant", CALL), ("tool", '{"result": "rain <|end|>"}'))
    return {
        "a tool": talk(("user", "Weather in Oslo?"), tools=TOOLS),
        "a tool and a system": talk(("system", "Be brief."), ("user", "Weather in Oslo?"), tools=TOOLS),
        "letters of a call": talk(("user", "Read it."), ("assistant", quoting), ("user", "Thank you.")),
        "what a tool said": talk(("user", "Weather in Oslo?"), *again, tools=TOOLS),
    }


def answers(engine: Engine, requests: dict[str, Request]) -> dict[str, Outcome]:
    waiting, found = [*requests.items()], {}
    names = {request.key: name for name, request in requests.items()}
    while waiting or len(found) < len(requests):
        while waiting and engine.room() > 0:
            engine.submit(waiting.pop(0)[1])
        for key, outcome in engine.poll():
            assert names[key] not in found, "answered twice"
            found[names[key]] = outcome
    return found


def told(outcome: Outcome, without: set[str] = frozenset()) -> dict[str, object]:  # type: ignore[assignment]
    """What is compared of an answer."""
    assert isinstance(outcome, Result), outcome
    fields = ("text", "tokens", "finish", "prompt_tokens", "words", "quoted")
    return {name: getattr(outcome, name) for name in fields if name not in without}


def drained(answer: Generator[str, None, Result]) -> tuple[list[str], Result]:
    pieces = []
    while True:
        try:
            pieces.append(next(answer))
        except StopIteration as end:
            return pieces, end.value
