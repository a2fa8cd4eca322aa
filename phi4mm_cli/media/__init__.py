"""Media in: decoding, voice activity, cutting. Nothing here knows the model."""

from __future__ import annotations

from pathlib import Path

from phi4mm_cli.schema import Source

# What is looked for in a folder. A file that is named on the command line is judged by its content alone.
AUDIO_SUFFIXES = frozenset(
    [
        ".aac",
        ".aif",
        ".aifc",
        ".aiff",
        ".amr",
        ".au",
        ".caf",
        ".flac",
        ".m4a",
        ".m4b",
        ".mka",
        ".mp2",
        ".mp3",
        ".oga",
        ".ogg",
        ".opus",
        ".rf64",
        ".snd",
        ".w64",
        ".wav",
        ".wma",
    ]
)
VIDEO_SUFFIXES = frozenset(
    [".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"]
)
DOCUMENT_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".heic",
        ".heif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pdf",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
PAGED_SUFFIXES = frozenset([".pdf", ".tif", ".tiff"])  # of those, what may have several pages

FRAMES = 16  # of a video that are looked at: so many of each its authors showed the model in VideoMME


def source(path: Path) -> Source:
    """The file as it is now. Raises InputError."""
    from phi4mm_cli.media import audio

    return audio.source(path)
