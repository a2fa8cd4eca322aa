"""What kind of file the first bytes tell of, so that one without a suffix, or with a wrong one, is found as well."""

from __future__ import annotations

HEAD = 64  # bytes

# By the bytes that files begin with, or hold at a place: the suffix that such a file usually has.
_SIGNS: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", ".wav"),
    (8, b"AVI ", ".avi"),
    (8, b"WEBP", ".webp"),
    (8, b"AIFF", ".aiff"),
    (8, b"AIFC", ".aifc"),
    (0, b"fLaC", ".flac"),
    (0, b"OggS", ".ogg"),
    (0, b"ID3", ".mp3"),
    (0, b"caff", ".caf"),
    (0, b"#!AMR", ".amr"),
    (0, b".snd", ".au"),
    (0, b"\x1aE\xdf\xa3", ".mkv"),
    (0, b"0&\xb2u\x8ef\xcf\x11", ".wma"),  # ASF: its GUID
    (0, b"FLV\x01", ".flv"),
    (0, b"\0\0\x01\xba", ".mpg"),
    (0, b"%PDF-", ".pdf"),
    (0, b"\x89PNG\r\n\x1a\n", ".png"),
    (0, b"\xff\xd8\xff", ".jpg"),
    (0, b"GIF8", ".gif"),
    (0, b"II*\0", ".tif"),
    (0, b"MM\0*", ".tif"),
    (4, b"jP  \r\n", ".jp2"),
)
_CONTAINERS = (b"RIFF", b"RF64", b"FORM")  # what stands at 8 in them is no chance
_BRANDS = {b"avif": ".avif", b"avis": ".avif", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heic", b"M4A ": ".m4a"}


def suffix_of(head: bytes) -> str | None:
    """The usual suffix, as `.wav`, of a file that begins with `head`, of `HEAD` bytes; None where that tells nothing.

    Only signs of three bytes and more count: what begins like MPEG audio by chance is left to its name.
    """
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], ".mp4")  # ISO 14496-12, section 4.3
    for place, sign, suffix in _SIGNS:
        if head.startswith(sign, place) and (place != 8 or head[:4] in _CONTAINERS):
            return suffix
    return None
