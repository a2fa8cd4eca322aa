"""What the first and last bytes of a recording tell where the decoders do not: its length, its end, its kind."""

from __future__ import annotations

import re
from typing import BinaryIO

from phi4mm_cli.errors import InputError

ADVICE = "Give it a recording (wav, flac, mp3, m4a, ogg, opus, ...) or a video that has a sound track."
HEAD = 4096  # bytes; more than the first frame of any MP3
OGG_PAGE = 27 + 255 + 255 * 255  # bytes; the longest page: RFC 3533, section 6
PLACEHOLDER = 1 << 16  # bytes around 0, 2 GiB and 4 GiB that stand for "not known yet" in a WAV written to a pipe

KINDS = (
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"BM", "a picture"),
    (b"II*\0", "a picture"),
    (b"MM\0*", "a picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive or an office document"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"#EXTM3U", "a playlist"),
)

# libsndfile's log of a header: what the sound's chunk should hold, and what the file does hold.
SOUND_CHUNK = re.compile(r"^\s*(?:data|SSND|BODY|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


def is_compressed(file: BinaryIO) -> bool:
    """Whether the file starts as FLAC, Ogg or MP3 does (an ID3 tag, or the 11 bits that open each MPEG audio frame)."""
    file.seek(0)
    head = file.read(4)
    return head[:3] == b"ID3" or head in (b"fLaC", b"OggS") or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def missing_bytes(log: str) -> int | None:
    """Bytes of sound that a header promises beyond the end of the file, from libsndfile's `log`.

    None: the header was written before the length was known.
    """
    found = SOUND_CHUNK.search(log)
    if not found:
        return 0
    promised, present = int(found[1]), int(found[2])
    if min(abs(promised - unknown) for unknown in (0, 1 << 31, 1 << 32)) < PLACEHOLDER or promised > 1 << 62:
        return None
    return promised - present


def mp3_has_length(file: BinaryIO) -> bool:
    """Whether the first frame of an MP3 is a Xing, LAME or VBRI header, which counts the frames."""
    file.seek(0)
    head = file.read(10)
    if head[:3] == b"ID3":
        # The size of the tag is in four bytes of seven bits: ID3v2.4.0, section 3.1.
        file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=False)))
        head = b""
    frame = head + file.read(HEAD)
    return any(tag in frame for tag in (b"Xing", b"Info", b"VBRI"))


def ogg_damage(file: BinaryIO) -> str | None:
    """That the last page of an Ogg file is cut off, if it is.

    The end-of-stream mark is no sign: recorders of several telephones never write it.
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return None
    size = file.seek(0, 2)
    file.seek(max(0, size - OGG_PAGE))
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    segments = page[26] if len(page) > 26 else 0
    length = 27 + segments + sum(page[27 : 27 + segments])
    whole = start >= 0 and len(page) > 26 and len(page) >= length
    return None if whole else "the file was cut off"


def duration_tag(text: str) -> float | None:
    """Seconds of a track's DURATION tag in Matroska, 00:00:20.008000000; None where it is not one."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)\0*", text.strip())
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def not_a_recording(file: BinaryIO, name: str) -> InputError:
    """The error for a file that no decoder could open, as plain as its first bytes allow."""
    file.seek(0)
    head = file.read(HEAD)
    if head[4:8] in (b"ftyp", b"mdat", b"moov", b"wide", b"free"):
        return InputError(
            f"{name}: this MP4 recording was cut off: the index at its end is missing, so nothing in it can be read",
            "Copy it again from where it was recorded, or repair it with a tool such as untrunc.",
        )
    for magic, kind in KINDS:
        if head.startswith(magic):
            return InputError(f"{name}: it is {kind}, not a recording", ADVICE)
    if b"\0" not in head and all(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in head):
        return InputError(f"{name}: it is a text file, not a recording", ADVICE)
    return InputError(f"{name}: it is not a recording that can be read, or it is damaged from its start", ADVICE)
