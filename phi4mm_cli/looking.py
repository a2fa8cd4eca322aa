"""What there is to see and hear in files: pictures, the pages of documents, the frames and the sound of videos."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from phi4mm_cli import material, media, ranges
from phi4mm_cli.errors import InputError
from phi4mm_cli.hearing import Listening
from phi4mm_cli.material import Limits
from phi4mm_cli.outputs import Coverage, Seen, Warning
from phi4mm_cli.paging import ALL_PAGES, Selection
from phi4mm_cli.paths import telling_names
from phi4mm_cli.schema import Clip, Picture, Source
from phi4mm_cli.showing import MOST_PICTURES, Shown
from phi4mm_cli.timing import clock
from phi4mm_cli.video_options import VideoOptions

if TYPE_CHECKING:
    from phi4mm_cli.media.document import Document
    from phi4mm_cli.media.video import VideoInfo

LONGEST_SOUND = 1800.0  # seconds: the model card, of recordings that it is to summarize
FAR_SMALLER = 0.25  # of its width and height, at which most print on a picture is lost


@dataclass(frozen=True, slots=True)
class Looking:
    """What of files is looked at."""

    pages: Selection = ALL_PAGES
    spans: tuple[ranges.Span, ...] = ranges.WHOLE  # of videos
    video: VideoOptions = field(default_factory=VideoOptions)
    channel: int | None = None  # of their sound, counted from 1; None mixes all down
    vad: bool = True  # find the speech in it first; False hears everything


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at of one file."""

    source: Source
    pictures: tuple[Picture, ...]
    coverage: Coverage
    clips: tuple[Clip, ...] = ()  # what is heard
    is_video: bool = False
    warnings: tuple[Warning, ...] = ()


def look(source: Source, how: Looking, files: ExitStack) -> Look:
    """What `how` names of a file, whose sound stays open as long as `files`. Raises InputError."""
    from phi4mm_cli.media import document, video

    path = Path(source.path)
    if not document.is_one(path):
        _require_video(path)
        return _film(source, video.probe(path), how, files)
    with document.Document(source) as opened:
        numbers = _numbers(opened, how)
        pictures = tuple(opened.picture(number) for number in numbers)
        return Look(source, pictures, Coverage("pages", opened.page_count, len(numbers)))


def probe(path: Path, how: Looking) -> float:
    """How many pictures there are, from headers: what `look` would refuse is refused. Raises InputError."""
    from phi4mm_cli.media import document

    if not document.is_one(path):
        _require_video(path)
        return probe_video(path, how)
    with document.Document(media.source(path)) as opened:
        return float(len(_numbers(opened, how)))


def probe_video(path: Path, how: Looking) -> float:
    """One thing to be shown. Raises InputError where it is no video, or ends before the spans begin."""
    from phi4mm_cli.media import video

    info = video.probe(path)
    if not video.within(how.spans, info.seconds):
        raise InputError(f"it ends at {clock(info.seconds)}, before the range begins", "Give another --range")
    return 1.0


def _require_video(path: Path) -> None:
    from phi4mm_cli.media import video

    if not video.is_film_or_sound(path):
        message = "it is neither a picture nor a document nor a video that can be read"
        raise InputError(message, "Give a png, jpg, webp, tiff, pdf, mp4, mkv, ...")


def _numbers(opened: Document, how: Looking) -> list[int]:
    """The pages that are looked at; a picture that is alone in its file has none to choose. Raises InputError."""
    from phi4mm_cli.media import document

    numbers = [1] if opened.is_picture else how.pages.of(opened.page_count)
    if not numbers:
        raise document.no_page(how.pages.first, opened.page_count)
    if len(numbers) > MOST_PICTURES:
        message = f"it has {len(numbers)} pages to be shown, and the model takes {MOST_PICTURES} at once"
        raise InputError(message, "Choose some with --pages, or read them with `phi4mm ocr`")
    return numbers


def _film(source: Source, info: VideoInfo, how: Looking, files: ExitStack) -> Look:
    from phi4mm_cli.media import video

    choice = how.video.choice(how.spans)
    spans = video.within(how.spans, info.seconds)
    frames = video.frames(source, choice, info)
    read = sum(end - start for start, end in spans)
    warnings, clips, speech = [*_film_warnings(info)], tuple[Clip, ...](), None
    if choice.every is not None and (wanted := video.steps(spans, choice.every)) > len(frames):
        message = f"a frame every {choice.every:g} s would be {wanted} frames"
        warnings.append(Warning("fewer_frames", message, f"{len(frames)} of them are shown, evenly chosen"))
    if how.video.sound and not info.has_sound:
        warnings.append(Warning("no_sound", "the video has no sound track", "it was only looked at"))
    elif how.video.sound:
        if read > LONGEST_SOUND:
            message = f"{clock(read)} of sound are longer than the model hears at once, {clock(LONGEST_SOUND)}"
            raise InputError(message, "Choose a part with --range, or leave --sound out")
        limits = Limits(LONGEST_SOUND, 0, len)
        listening = Listening(vad=how.vad, channel=how.channel, spans=tuple(spans))
        heard = material.heard(source, limits, listening, files)
        clips, speech = heard.clips, heard.coverage.speech
        warnings += (warning for warning in heard.warnings if info.truncated is None)
    return Look(source, frames, Coverage("seconds", info.seconds, read, speech), clips, True, tuple(warnings))


def _film_warnings(info: VideoInfo) -> Iterator[Warning]:
    if info.truncated is not None:
        yield Warning("truncated_input", info.truncated, "what could be read was used", start=info.seconds)


# ------------------------------------------------------------------------------------------------------ what is told


def coverage(looks: Sequence[Look]) -> Coverage:
    """How much of all files is looked at: of one as it says itself, of several in pictures and frames."""
    if len(looks) == 1:
        return looks[0].coverage
    count = sum(len(one.pictures) for one in looks)
    documents = [one.coverage for one in looks if not one.is_video]
    return Coverage("pages", count + sum(one.total - one.read for one in documents), count)


def seen(shown: Sequence[Shown], sources: Sequence[Source]) -> tuple[Seen, ...]:
    """The pictures as a result tells of them, with the names of their sources where these are several."""
    paths = [source.path for source in sources]
    names = dict(zip(paths, telling_names(paths, with_suffix=True), strict=True)) if len(paths) > 1 else {}
    return tuple(
        Seen(
            size=one.size,
            shown=(one.layout.width, one.layout.height),
            tokens=one.tokens,
            page=one.picture.page,
            time=one.picture.time,
            source=names.get(one.picture.source.path),
        )
        for one in shown
    )


def scaled(shown: Sequence[Shown]) -> Iterator[Warning]:
    """That pictures were shown smaller than their viewer may think. Of videos nobody expects every pixel."""
    still = [one for one in shown if one.picture.time is None]
    if reduced := [one for one in still if one.is_reduced]:
        [most] = {one.picture.most_crops for one in shown}
        message = f"{len(reduced)} of {len(shown)} pictures are shown smaller, so that all fit"
        yield Warning("scaled_pictures", message, f"shown in at most {most} crops of 448 x 448 pixels each")
    for one in still:
        if not one.is_reduced and one.layout.width < FAR_SMALLER * one.size[0]:
            message = f"the picture has {one.size[0]} x {one.size[1]} pixels"
            action = f"shown at {one.layout.width} x {one.layout.height}, where small print is lost"
            yield Warning("scaled_pictures", message, action, page=one.picture.page)


def frame_times(looks: Sequence[Look]) -> str:
    """Which of the pictures are frames of videos, and when they are seen; "" where none are.

    The model was trained with pictures before the words, so this stands behind them; the wording is our own.
    """
    told, first = [], 1
    for one in looks:
        last = first + len(one.pictures) - 1
        if one.is_video:
            which = "The images" if len(looks) == 1 else f"Images {first} to {last}"
            which = "The image" if len(looks) == 1 and first == last else which
            told.append(f"{which} {'is a frame' if first == last else 'are frames'} of a video, {_at(one.pictures)}.")
        first = last + 1
    return " ".join(told)


def _at(frames: Sequence[Picture]) -> str:
    times = [frame.time or 0.0 for frame in frames]
    precise = len({clock(time) for time in times}) < len(times)
    return "at " + ", ".join(f"{clock(time)}.{int(10 * time) % 10}" if precise else clock(time) for time in times)
