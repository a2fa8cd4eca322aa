"""A pool of spoken utterances to train the demo on: their log-mel features, words and sounds, kept in one folder.

Everything follows from the number of an item: the same numbers give the same pool on any machine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from phi4mm_cli.demo.voice import Speech
from phi4mm_cli.demo.world import conversations, documents, scenes, sentences, tools
from phi4mm_cli.demo.world.lexicon import Language, Phrase
from phi4mm_cli.demo.world.speakers import Speaker
from phi4mm_cli.model.features import log_mel

STEPS_PER_UNIT = 10.0  # features are kept in bytes: 0.1 of a natural logarithm, 0.43 dB
SLOT = 0.02  # seconds of one sound label
LOOKS = 1_000_000  # items from this number on are questions about pictures


@dataclass(frozen=True, slots=True)
class Utterance:
    """One spoken sentence: what was said, in every language it has, and where it lies in the pool."""

    texts: dict[str, str]  # by language; the spoken one is among them
    language: Language
    kind: str  # sentence, words, story, question, errand or look
    passage: int  # utterances of one passage belong together, in order
    extra: Any  # of a story its gist, of a question its answer, of an errand the call and its tools
    frames: tuple[int, int]  # first and last in the features
    slots: tuple[int, int]  # first and last in the sound labels
    words: list[tuple[str, float, float]]  # as written, without punctuation; seconds


def passage(number: int, seed: int) -> tuple[str, Language, list[Phrase | dict[str, str]], Any]:
    """Kind, spoken language, sentences and what belongs to them, of item `number`."""
    rng = random.Random(f"{seed} {number}")
    roll = rng.random()
    language: Language = rng.choice(("en", "en", "fr", "es"))
    if number >= LOOKS:
        return "look", "en", [{"en": scenes.any_question(rng)}], None
    if roll < 0.07:
        asked, reply = conversations.any_question(rng, spoken=True)
        return "question", "en", [{"en": asked}], reply["en"]
    if roll < 0.15:
        wanted = tools.errand(rng, spoken=True)
        return "errand", "en", [{"en": wanted.asked}], [wanted.tool, wanted.arguments]
    if roll < 0.25:
        told, gist = documents.story(rng, most_others=2)
        return "story", language, [dict(phrase) for phrase in told], gist
    if roll < 0.42:
        words = " ".join(sentences.sentence(rng)[language] for _ in range(5)).replace(".", "").split()
        words = [word.strip("¿?,") for word in words if word.strip("¿?,")]
        rng.shuffle(words)
        return "words", language, [{language: " ".join(words[: rng.randint(2, 9)])}], None
    return "sentence", language, [sentences.sentence(rng) for _ in range(rng.randint(1, 3))], None


def speak_passage(number: int, seed: int, tests: bool, unseen: bool) -> list[tuple[dict[str, Any], Speech]]:
    """The utterances of item `number`, spoken by one voice; none where they belong to the other fold."""
    kind, language, told, extra = passage(number, seed)
    rng = random.Random(f"{seed} {number} voice")
    if kind in ("sentence", "story"):
        told = [phrase for phrase in told if sentences.held_out(phrase["en"]) == tests]
    speaker = Speaker(rng, language, unseen)
    spoken = []
    for phrase in told:
        speech = speaker.say(phrase[language])
        if speech.words and len(speech.samples) > 4000:
            item = {"texts": dict(phrase), "language": language, "kind": kind, "passage": number, "extra": extra}
            spoken.append((item, speech))
    return spoken


def _make(task: tuple[int, int, bool, bool]) -> list[tuple[dict[str, Any], NDArray[np.uint8], list[str]]]:
    torch.set_num_threads(1)
    made = []
    for item, speech in speak_passage(*task):
        features = log_mel(speech.samples, speech.rate).numpy()
        item["words"] = [(w.text.strip(".,?¿!"), round(w.start, 3), round(w.end, 3)) for w in speech.words]
        slots = ["_"] * int(len(speech.samples) / speech.rate / SLOT)
        for sound in speech.phonemes:
            for slot in range(round(sound.start / SLOT), min(len(slots), round(sound.end / SLOT))):
                slots[slot] = "_" if sound.is_pause else sound.name
        quantized = np.clip(np.rint(features * STEPS_PER_UNIT), 0, 255).astype(np.uint8)
        made.append((item, quantized, slots))
    return made


def build(
    folder: Path, numbers: Iterable[int], seed: int, workers: int, tests: bool = False, unseen: bool = False
) -> None:
    """Speak the items into `folder`, after those that are there: features.u8, sounds.u8, index.jsonl, sounds.json."""
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, int] = {"_": 0}
    frames = slots = 0
    if (folder / "index.jsonl").exists():
        there = Pool(folder)
        names, frames, slots = there.sound_names, len(there.features), len(there.sounds)
    tasks = [(number, seed, tests, unseen) for number in numbers]
    with (
        ProcessPoolExecutor(workers) as processes,
        (folder / "features.u8").open("ab") as features_file,
        (folder / "sounds.u8").open("ab") as sounds_file,
        (folder / "index.jsonl").open("a", encoding="utf-8") as index,
    ):
        for made in tqdm(processes.map(_make, tasks, chunksize=50), total=len(tasks), mininterval=30):
            for item, features, sounds in made:
                features_file.write(features.tobytes())
                sounds_file.write(bytes(names.setdefault(sound, len(names)) for sound in sounds))
                item["frames"], item["slots"] = (frames, frames + len(features)), (slots, slots + len(sounds))
                frames, slots = frames + len(features), slots + len(sounds)
                index.write(json.dumps(item, ensure_ascii=False) + "\n")
    (folder / "sounds.json").write_text(json.dumps(names, ensure_ascii=False), encoding="utf-8")


def build_all(folder: Path, workers: int) -> None:
    """The pool to train on, and those to test with: of sentences held out, and of such in voices held out too."""
    for name, count, seed, tests, unseen in (
        ("pool", 40_000, 7, False, False),
        ("pool-test", 1500, 99, True, False),
        ("pool-unseen", 1500, 98, True, True),
    ):
        if not (folder / name).exists():
            numbers = [*range(count), *range(LOOKS, LOOKS + count // 12)]
            build(folder / name, numbers, seed, workers, tests, unseen)


class Pool:
    """A pool on disk, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        self.features = np.memmap(folder / "features.u8", np.uint8, "r").reshape(-1, 80)
        self.sounds = np.memmap(folder / "sounds.u8", np.uint8, "r")
        self.sound_names: dict[str, int] = json.loads((folder / "sounds.json").read_text(encoding="utf-8"))
        self.utterances = list(self._read(folder))
        self.passages: dict[int, list[Utterance]] = {}
        for utterance in self.utterances:
            self.passages.setdefault(utterance.passage, []).append(utterance)

    @staticmethod
    def _read(folder: Path) -> Iterator[Utterance]:
        with (folder / "index.jsonl").open(encoding="utf-8") as index:
            for line in index:
                item = json.loads(line)
                item["frames"], item["slots"] = tuple(item["frames"]), tuple(item["slots"])
                yield Utterance(**item)

    def log_mel(self, utterance: Utterance) -> NDArray[np.float32]:
        """Features of an utterance, (frames, 80)."""
        first, last = utterance.frames
        return self.features[first:last].astype(np.float32) / np.float32(STEPS_PER_UNIT)

    def moments(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and inverse standard deviation of each band, (80,) each."""
        sample = self.features[:: max(1, len(self.features) // 200_000)].astype(np.float32) / STEPS_PER_UNIT
        return sample.mean(0), 1 / sample.std(0)
