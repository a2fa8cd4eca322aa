"""What comes with a question: pictures, recordings, videos and documents, as the parts of a message."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from phi4mm_cli import texts
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import AUDIO_SUFFIXES, DOCUMENT_SUFFIXES, VIDEO_SUFFIXES
from phi4mm_cli.paths import from_home, is_there
from phi4mm_cli.schema import Clip, Message, Part, Picture

MOST_TEXT = 2**24  # bytes of a document: 131,072 tokens of 128 letters each, the longest there are
LONGEST_NAME = 80  # letters


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that a question is about."""

    name: str
    parts: tuple[Part, ...]
    damage: str | None = None  # why it is not all of the file


@dataclass(frozen=True, slots=True)
class Damage:
    """A file ends before it should; what could be read of it is used."""

    what: str


Attach = Callable[[Path], Attachment]  # raises InputError


def message(words: str | None, attachments: Iterable[Attachment], room: int | None = None) -> Message:
    """The user's turn: pictures, recordings, documents, words, in the order that the model knows.

    The pictures are shown as finely as `room` tokens hold and the model knows together; None leaves each its own size.
    Raises InputError where they are too many.
    """
    parts = [part for attachment in attachments for part in attachment.parts]
    pictures = [part for part in parts if isinstance(part, Picture)]
    if pictures and room is not None:
        from phi4mm_cli.showing import shown

        pictures = [one.picture for one in shown(pictures, room)]
    sounds = [part for part in parts if isinstance(part, Clip)]
    told = [part for part in (*parts, words) if isinstance(part, str) and part]
    return Message("user", (*pictures, *sounds, *told))


def picture(path: Path) -> Attachment:
    """A picture. Raises InputError."""
    return _attached(path, _picture)


def recording(path: Path) -> Attachment:
    """A recording, from its beginning to its end. Raises InputError."""
    return _attached(path, _recording)


def document(path: Path) -> Attachment:
    """A text, or the pages of a document: those of a PDF that carry text as that, others as pictures.

    Raises InputError.
    """
    return _attached(path, _document)


def video(path: Path) -> Attachment:
    """Frames of a video, evenly spread, and its sound. Raises InputError."""
    return _attached(path, _video)


PDF = {".pdf"}
WAYS: dict[str, tuple[Attach, frozenset[str]]] = {  # by which a chat is given files, and the suffixes of each
    "image": (picture, DOCUMENT_SUFFIXES - PDF),
    "audio": (recording, AUDIO_SUFFIXES),
    "video": (video, VIDEO_SUFFIXES),
    "doc": (document, frozenset(PDF)),
}


def attached(way: str, path: Path) -> Attachment:
    """A file that a chat is given by one of WAYS. Raises InputError, which names a better way where there is one."""
    attach, _ = WAYS[way]
    try:
        return attach(path)
    except InputError as error:
        better = next((name for name, (_, suffixes) in WAYS.items() if path.suffix.lower() in suffixes), way)
        if way in (better, "doc") or not is_there(from_home(path)):  # a document may be a picture
            raise
        raise InputError(error.message, f"Attach it with /{better}, or --{better}") from None


def _attached(path: Path, read: Callable[[Path], Iterable[Part | Damage]]) -> Attachment:
    path = from_home(path)
    try:
        found = [*read(path.absolute())]
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.advice) from None
    parts = tuple(part for part in found if not isinstance(part, Damage))
    damage = [f"{path}: {part.what}" for part in found if isinstance(part, Damage)]
    return Attachment(path.name, parts, "; ".join(damage) or None)


def _picture(path: Path) -> Iterator[Part]:
    from phi4mm_cli.media import audio, image

    image.image_size(path)
    yield Picture(audio.source(path))


def _recording(path: Path) -> Iterator[Part | Damage]:
    from phi4mm_cli.media import audio

    with audio.open_recording(audio.source(path)) as opened:
        for _ in opened.blocks():  # headers are not always right about the length
            pass
        yield Clip(opened.source, 0.0, opened.seconds)
        if opened.truncated:
            yield Damage(opened.truncated)


def _video(path: Path) -> Iterator[Part | Damage]:
    from phi4mm_cli.media import audio
    from phi4mm_cli.media import video as videos

    info = videos.probe(path)
    yield from videos.frames(audio.source(path), info=info)
    if info.has_sound:
        yield from _recording(path)
    elif info.truncated:
        yield Damage(info.truncated)


def _document(path: Path) -> Iterator[Part]:
    from phi4mm_cli.media.decode import open_file
    from phi4mm_cli.media.pdf import is_pdf

    with open_file(path) as file:
        is_text = texts.is_text(path) or texts.begins_as_text(path)  # main.ts is no video
        has_pages = is_pdf(file) or path.suffix.lower() in DOCUMENT_SUFFIXES or not is_text
    if has_pages:
        yield from _pages(path)
        return
    if path.stat().st_size > MOST_TEXT:
        raise InputError("it is longer than any text that the model can read", "Give the part of it that matters")
    yield under_name(path.name, texts.decoded(path.read_bytes()))


def _pages(path: Path) -> Iterator[Part]:
    from phi4mm_cli import paging, reading
    from phi4mm_cli.media import audio
    from phi4mm_cli.media.document import Document

    with Document(audio.source(path)) as opened:
        carried: list[str] = []
        for number in range(1, opened.page_count + 1):
            text = opened.text(number)
            if reading.is_legible(text):
                carried.append(text)
            else:
                for view in paging.views(opened.sheet(number)):
                    yield opened.picture(number, view.size, view.band)
        if carried:
            yield under_name(path.name, "\n\n".join(carried))


def under_name(name: str, text: str) -> str:
    """A text as the model is shown it, apart from what stands around it."""
    return f"{name[:LONGEST_NAME]}:\n\n{text.strip()}\n\n"
