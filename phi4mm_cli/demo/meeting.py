"""Makes the sample meeting: `python -m phi4mm_cli.demo.meeting FOLDER` writes meeting.flac and meeting.reference.json.

Synthetic voices say sentences within what the demo checkpoint knows, with pauses and light noise. It is a recording
to try the program on, not a measure of it: its sentences and voices were chosen within the checkpoint's grammar.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from phi4mm_cli.demo.voice import speak

RATE = 16000  # Hz
SEED = 7
NOISE_DB = -30.0  # below the speech
LOUDNESS = 0.08  # root mean square of a sentence; full scale is 1
VOICES = {"Alice": ("en+f2", 165), "Bob": ("en", 170), "Carol": ("en+f3", 160), "David": ("en+m3", 165)}

MEETING = [
    ("Bob", "The meeting starts at six o'clock on Friday."),
    ("Alice", "Please send the budget to Nina before Tuesday."),
    ("Bob", "The price is forty dollars."),
    ("Carol", "I see a yellow bicycle near the house."),
    ("David", "Oscar forgot the letter on Monday."),
    ("Alice", "Julia and Carol are working on the camera."),
    ("Bob", "We need thirty two more months."),
    ("Carol", "My number is four two nine."),
    ("David", "Please send the letter to Oscar before Friday."),
    ("Alice", "The meeting starts at nine o'clock on Monday."),
    ("Bob", "Martin and Laura are working on the budget."),
    ("Carol", "The price is sixty dollars."),
    ("David", "I see a yellow camera near the house."),
    ("Alice", "We need twenty more months."),
    ("Bob", "Julia forgot the camera on Tuesday."),
    ("Carol", "My number is seven five three."),
    ("David", "Please send the camera to Alice before Sunday."),
    ("Bob", "The meeting starts at two o'clock on Thursday."),
]


def make() -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The samples of the meeting at RATE, and its text with the times of its sentences and words in seconds."""
    random = np.random.default_rng(SEED)
    parts: list[NDArray[np.float32]] = [np.zeros(RATE, np.float32)]
    sentences = []
    for speaker, text in MEETING:
        voice, words_per_minute = VOICES[speaker]
        speech = speak(text, voice=voice, rate_wpm=words_per_minute)
        at = sum(map(len, parts)) / RATE
        words = [
            {"word": word.text, "start": round(at + word.start, 3), "end": round(at + word.end, 3)}
            for word in speech.words
        ]
        ends = {"start": words[0]["start"], "end": words[-1]["end"]}
        sentences.append({**ends, "text": text, "speaker": speaker, "words": words})
        loudness = np.sqrt(np.mean(np.square(speech.samples)))
        parts += [speech.samples * np.float32(LOUDNESS / loudness)]
        parts += [np.zeros(round(RATE * random.uniform(0.4, 1.4)), np.float32)]
    samples = np.concatenate(parts)
    samples += random.normal(0.0, LOUDNESS * 10 ** (NOISE_DB / 20), len(samples)).astype(np.float32)
    reference = {
        "text": " ".join(text for _, text in MEETING),
        "language": "en",
        "duration": round(len(samples) / RATE, 3),
        "sentences": sentences,
    }
    return samples, reference


def main() -> None:
    """Write the sample and its reference into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    samples, reference = make()
    soundfile.write(folder / "meeting.flac", samples, RATE, subtype="PCM_16")
    (folder / "meeting.reference.json").write_text(json.dumps(reference, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
