"""Speaks text with eSpeak NG and tells when each word is said: sound whose truth is known, to train and test with."""

from __future__ import annotations

import _ctypes
import ctypes
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from phi4mm_cli.errors import MissingError, UsageError

# Constants of the library's C header, speak_lib.h, version 1.52.
_SYNCHRONOUS, _PHONEME_EVENTS, _DO_NOT_EXIT, _CHARACTERS, _UTF8 = 2, 0x0001, 0x8000, 1, 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4
_LAST_EVENT, _WORD, _PHONEME = 0, 1, 7

_UNSPOKEN = re.compile(r"[-‐-―.,;:!?…'\"‘-‟()\[\]{}]+")
_lock = threading.Lock()  # the library keeps its state in globals


@dataclass(frozen=True, slots=True)
class Word:
    """A word as it was written, and when it sounds."""

    text: str
    start: float  # seconds
    end: float  # seconds


@dataclass(frozen=True, slots=True)
class Phoneme:
    """A speech sound, or a pause where `name` begins with an underscore."""

    name: str  # in eSpeak's notation
    start: float  # seconds
    end: float  # seconds

    @property
    def is_pause(self) -> bool:
        """Whether nothing is heard."""
        return self.name.startswith("_")


@dataclass(frozen=True, slots=True)
class Speech:
    """Spoken text: mono samples in -1..1, with the words and sounds in them."""

    samples: npt.NDArray[np.float32]
    rate: int  # samples per second
    words: tuple[Word, ...]
    phonemes: tuple[Phoneme, ...]


@dataclass(frozen=True, slots=True)
class _Mark:
    """What the library reports: at `sample` a word of the text begins, or the sound `phoneme` does."""

    sample: int
    character: int  # where in the text, from 0
    phoneme: str | None


def speak(
    text: str,
    voice: str = "en",
    rate_wpm: int = 170,
    pitch: int = 50,
    pitch_range: int = 50,
    seed: int = 1,
    sample_rate: int = 16000,
) -> Speech:
    """`text` spoken by an eSpeak NG voice: equal arguments give equal samples, in any order of calls.

    `voice` is a language, with a variant if wished: `en`, `en-us`, `en+m7`, `en+f4`, `en+whisper`. `pitch` and
    `pitch_range` go from 0 to 99; `seed` varies breath and consonants. Words that a voice runs into one ("of the")
    share its sounds in proportion to their letters; what is not spoken, such as a lone dash, is no word.

    Raises MissingError without the package `espeakng-loader`, UsageError for an unknown voice.
    """
    with _lock:
        pcm, rate, marks = _synthesize(text, voice, {_RATE: rate_wpm, _PITCH: pitch, _PITCH_RANGE: pitch_range}, seed)
    groups: list[tuple[int, list[Phoneme]]] = []  # where a word begins in the text, and its sounds
    begin = 0  # of the next sound: that of its word, for the few milliseconds in between are heard
    for mark, end in zip(marks, [mark.sample for mark in marks[1:]] + [len(pcm)], strict=True):
        if mark.phoneme is None:
            groups.append((mark.character, []))
            begin = mark.sample
        elif groups:
            groups[-1][1].append(Phoneme(mark.phoneme, begin / rate, end / rate))
            begin = end
    samples = soxr.resample(pcm.astype(np.float32) / 32768, rate, sample_rate)
    phonemes = tuple(phoneme for _, group in groups for phoneme in group)
    return Speech(samples, sample_rate, _words(text, groups), phonemes)


def _words(text: str, groups: Sequence[tuple[int, Sequence[Phoneme]]]) -> tuple[Word, ...]:
    """The words of `text`, from the sounds that belong to what begins at a character of it."""
    tokens = [match for match in re.finditer(r"\S+", text) if not _UNSPOKEN.fullmatch(match.group())]
    if not tokens:
        return ()
    last = len(tokens) - 1
    heard: dict[int, list[Phoneme]] = {}
    for start, group in groups:
        token = next((n for n, match in enumerate(tokens) if match.end() > start), last)
        heard.setdefault(token, []).extend(phoneme for phoneme in group if not phoneme.is_pause)
    words: list[Word] = []
    for token, sounds in heard.items():
        following = tokens[token + 1 : min((n for n in heard if n > token), default=len(tokens))]
        words += _share([tokens[token].group(), *(match.group() for match in following)], sounds)
    return tuple(words)


def _share(tokens: Sequence[str], sounds: Sequence[Phoneme]) -> list[Word]:
    """Deals the sounds of words that are spoken as one out to them, in proportion to their letters."""
    letters = np.cumsum([0] + [len(token) for token in tokens])
    edges = np.rint(letters / letters[-1] * len(sounds)).astype(int)
    return [
        Word(token, sounds[first].start, sounds[last - 1].end)
        for token, first, last in zip(tokens, edges, edges[1:], strict=False)
        if last > first
    ]


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def _synthesize(
    text: str, voice: str, parameters: Mapping[int, int], seed: int
) -> tuple[npt.NDArray[np.int16], int, list[_Mark]]:
    """One run of the library: samples, their rate, and the marks in order of time.

    The library is loaded afresh for each text: oscillator and flutter phases otherwise run on from the text before,
    through `espeak_Terminate`, and the same text would sound different each time. That takes about 9 ms.
    """
    blocks: list[npt.NDArray[np.int16]] = []
    marks: list[_Mark] = []

    def receive(samples: Any, count: int, events: Any) -> int:
        if count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in events:
            if event.type == _LAST_EVENT:
                break
            if event.type in (_WORD, _PHONEME):
                name = event.id.string.decode() if event.type == _PHONEME else None
                marks.append(_Mark(event.sample, event.text_position - 1, name))
        return 0

    callback = _Callback(receive)  # held here: the library keeps no reference
    encoded = text.encode()
    library, data = _load()
    try:
        flags = _PHONEME_EVENTS | _DO_NOT_EXIT
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), flags)
        if rate <= 0:
            raise MissingError(
                f"eSpeak NG cannot read its data in {data}", "Install into a folder with a shorter path."
            )
        library.espeak_SetSynthCallback(callback)
        _, _, variant = voice.partition("+")
        # The library takes an unknown variant for none, without a word.
        known = not variant or (data / "voices" / "!v" / variant).is_file()
        if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UsageError(f"eSpeak NG has no voice {voice!r}", "Try en, en-us, en+m3 or en+f4.")
        for parameter, value in parameters.items():
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_ng_SetRandSeed(seed)
        library.espeak_Synth(encoded, len(encoded) + 1, 0, _CHARACTERS, 0, _UTF8, None, None)
    finally:
        library.espeak_Terminate()
        _unload(library)
    return np.concatenate([np.zeros(0, np.int16), *blocks]), rate, marks


def _load() -> tuple[ctypes.CDLL, Path]:
    """The library and the folder of its data."""
    try:
        import espeakng_loader
    except ImportError as error:
        raise MissingError("The package espeakng-loader is not installed", "Run: pip install 'phi4mm[dev]'") from error
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
    library.espeak_ng_SetRandSeed.argtypes = (ctypes.c_long,)
    library.espeak_Synth.argtypes = (
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    )
    return library, Path(espeakng_loader.get_data_path())


def _unload(library: ctypes.CDLL) -> None:
    """Drops the library with its globals; `library` must not be used again."""
    if sys.platform == "win32":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
