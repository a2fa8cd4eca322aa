"""What the first and last bytes of a recording tell where the decoders do not: its length, its end, its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from phi4mm_cli.errors import InputError

ADVICE = "Give it a recording (wav, flac, mp3, m4a, ogg, opus, ...) or a video that has a sound track."
HEAD = 4096  # bytes; more than the first frame of any MP3
OGG_PAGE = 27 + 255 + 255 * 255  # bytes; the longest page: RFC 3533, section 6
PLACEHOLDER = 1 << 16  # bytes around 2 GiB and 4 GiB that stand for "not known yet" in a WAV written to a pipe

MP4_BOXES = (b"ftyp", b"styp", b"moov", b"mdat", b"wide", b"free", b"skip")  # that a file may begin with

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


def promised_share(log: str) -> float | None:
    """The sound that a header promises, as a multiple of what there is up to the end of the file: 1 if all is there.

    From libsndfile's `log`. None: the header was written before the length was known.
    """
    found = SOUND_CHUNK.search(log)
    if not found:
        return 1.0
    promised, present = int(found[1]), int(found[2])
    if promised == 0 or promised > 1 << 62 or min(abs(promised - (1 << bits)) for bits in (31, 32)) < PLACEHOLDER:
        return None
    return max(promised / max(present, 1), 1.0)


def is_overfull(log: str, size: int) -> bool:
    """Whether a WAV file of `size` bytes holds 4 GiB more than its header, of 32 bits, can count: from the same log."""
    found = re.search(r"^data : (\d+)$", log, re.MULTILINE)
    return found is not None and size - int(found[1]) >= 1 << 32


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


def is_chained(file: BinaryIO) -> bool:
    """Whether an Ogg file goes on with another stream where the first has ended: RFC 3533, section 4. Reads it all."""
    file.seek(0)
    text, has_begun = b"", False
    while part := file.read(1 << 20):
        text = text[-5:] + part
        for page in re.finditer(rb"OggS\0([\0-\7])", text):
            is_first = bool(page[1][0] & 2)
            if is_first and has_begun:
                return True
            has_begun |= not is_first
    return False


def is_cut_off(file: BinaryIO) -> bool:
    """Whether an Ogg, MP4 or CAF file ends inside a page, box or chunk. Long MP4s of many fragments take a moment."""
    file.seek(0)
    head = file.read(8)
    if head[:4] == b"OggS":
        return _last_ogg_page_is_cut_off(file)
    if head[:4] == b"caff":
        return _last_chunk_is_cut_off(file)
    return head[4:] in MP4_BOXES and _last_mp4_box_is_cut_off(file)


def _last_ogg_page_is_cut_off(file: BinaryIO) -> bool:
    # The end-of-stream mark is no sign: the recorders of several telephones never write it.
    size = file.seek(0, 2)
    file.seek(max(0, size - OGG_PAGE))
    tail = file.read()
    page = tail[max(tail.rfind(b"OggS"), 0) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return True
    return len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]])


def _last_mp4_box_is_cut_off(file: BinaryIO) -> bool:
    size = file.seek(0, 2)
    return any(end > size for _, end in _mp4_boxes(file))


def _mp4_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """The names of the boxes that an MP4 consists of, and where each says that it ends."""
    # A box is its size in 4 bytes, its name, and where that size is 1 the size in 8 bytes: ISO 14496-12, section 4.2.
    size, place = file.seek(0, 2), 0
    while place < size:
        file.seek(place)
        box = file.read(16)
        length = int.from_bytes(box[:4], "big")
        if length == 1:
            length = int.from_bytes(box[8:16], "big")
        if length < 8:  # 0: the last box, up to the end of the file; else no box
            length = size - place
        place += length
        yield box[4:8], place


def _last_chunk_is_cut_off(file: BinaryIO) -> bool:
    # Behind a header of 8 bytes, a chunk is its name and its size in 8 bytes, -1 where it was not known yet: Apple's
    # Core Audio Format specification 1.0.
    size, place = file.seek(0, 2), 8
    while place < size:
        file.seek(place)
        length = int.from_bytes(file.read(12)[4:], "big", signed=True)
        if length < 0:
            return False
        place += 12 + length
    return place > size


def lacks_index(file: BinaryIO) -> bool:
    """Whether the file is an MP4 that ends before its index: cameras and telephones write that last.

    Pictures in boxes, as AVIF, have another one.
    """
    file.seek(0)
    if file.read(8)[4:] not in MP4_BOXES:
        return False
    size = file.seek(0, 2)
    return not {name for name, end in _mp4_boxes(file) if end <= size} & {b"moov", b"meta"}


def without_index() -> InputError:
    """The error for such a file."""
    return InputError(
        "this MP4 file was cut off: the index at its end is missing, so nothing in it can be read",
        "Copy it again from where it was recorded, or repair it with a tool such as untrunc.",
    )


def duration_tag(text: str) -> float | None:
    """Seconds of a track's DURATION tag in Matroska, 00:00:20.008000000; None where it is not one."""
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)\0*", text.strip())
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def not_a_recording(file: BinaryIO) -> InputError:
    """The error for a file that no decoder could open, as plain as its first bytes allow."""
    if lacks_index(file):
        return without_index()
    file.seek(0)
    head = file.read(HEAD)
    for magic, kind in KINDS:
        if head.startswith(magic):
            return InputError(f"it is {kind}, not a recording", ADVICE)
    if b"\0" not in head and all(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in head):
        return InputError("it is a text file, not a recording", ADVICE)
    return InputError("it is not a recording that can be read, or it is damaged from its start", ADVICE)
