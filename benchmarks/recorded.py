"""What is taken for speech in real recordings: voices that have to be found, and music that has to be let go.

    python benchmarks/recorded.py VOICES MUSIC

Both are folders of recordings. Debian's packages asterisk-core-sounds-{en,es,fr,it}-wav (prompts of telephones, many of
a single word; the folders `silence` among them hold none), wesnoth-1.16-music and asterisk-moh-opsound-wav will do:
`apt-get download` and `dpkg -x` unpack them anywhere.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from phi4mm_cli import trust
from phi4mm_cli.media import audio, speech
from phi4mm_cli.media.speech import Chunk
from phi4mm_cli.trust import Said

LONGEST = 30.0  # seconds of a chunk
SUFFIXES = {".wav", ".ogg", ".flac", ".mp3"}


def chunks(folder: Path) -> Iterator[tuple[Path, float, list[Chunk]]]:
    """Each recording below `folder` with its length in seconds and its chunks."""
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES):
        with audio.open_recording(audio.source(path)) as recording:
            found = list(speech.chunks(recording, LONGEST))
            yield path, recording.seconds, found


def warns(chunk: Chunk) -> bool:
    """Whether no answer to the chunk would be worth a warning."""
    seconds = sum(region.end - region.start for region in chunk.speech)
    return bool(trust.faults(Said("", "stop", seconds, is_unsure=chunk.is_unsure)))


def main() -> None:
    """A line for each folder."""
    voices, music = (Path(argument) for argument in sys.argv[1:3])
    began = time.process_time()
    heard = [(path, found) for path, _, found in chunks(voices) if "silence" not in path.parts]
    missed = [path for path, found in heard if not found]
    print(f"voices: speech found in {len(heard) - len(missed)} of {len(heard)} recordings")
    for path in missed:
        print(f"  not in {path.relative_to(voices)}")
    played = list(chunks(music))
    asked = [chunk for _, _, found in played for chunk in found]
    seconds = sum(chunk.end - chunk.start for chunk in asked)
    total = sum(length for _, length, _ in played)
    print(
        f"music: {total / 60:.0f} minutes in {len(played)} recordings, of which {seconds / total:.2%} would be"
        f" transcribed; {sum(map(warns, asked))} of {len(asked)} chunks would be warned of"
    )
    print(f"{time.process_time() - began:.0f} s of processor time")


if __name__ == "__main__":
    main()
