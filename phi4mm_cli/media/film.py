"""The moving pictures of an open file: its frames from a place on, found by seeking, and how long they go on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO, cast

import av
import av.error
from av import VideoFrame
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from PIL import Image

from phi4mm_cli import cancel
from phi4mm_cli.errors import InputError
from phi4mm_cli.media import headers
from phi4mm_cli.media.container import FORMATS
from phi4mm_cli.media.decode import QuietFile

NEAR = 0.25  # seconds, to which the end of a file that was cut off is found
FIRST_STEP_BACK = 1.0  # seconds
OPTIONS = {"format_whitelist": FORMATS}
ADVICE = "Copy it again, or convert it to MP4."


@dataclass(frozen=True, slots=True)
class Film:
    """A file's track of moving pictures."""

    container: InputContainer
    track: VideoStream

    @property
    def zero(self) -> float:
        """The time on the file's clock that a player shows as 0:00."""
        return (self.container.start_time or 0) / av.time_base

    @property
    def has_sound(self) -> bool:
        """Whether it can be heard too."""
        return bool(self.container.streams.audio)

    def frames(self) -> Iterator[VideoFrame]:
        """The frames from where it stands; where the rest is damaged, those before it."""
        with suppress(av.error.FFmpegError):
            yield from self.container.decode(self.track)

    def seek(self, time: float, backward: bool = True) -> bool:
        """To the last key frame before `time` on its clock, or the first one behind it; False where that fails."""
        assert self.track.time_base is not None
        try:
            self.container.seek(math.floor(time / self.track.time_base), backward=backward, stream=self.track)
        except av.error.FFmpegError:
            return False
        return True

    def frames_from(self, time: float) -> Iterator[VideoFrame]:
        """The frames from the last key frame before `time` on its clock, or the first one where there is none.

        In MPEG's own streams `seek` finds any packet near that time, and what can be decoded begins behind it, or with
        a frame of which much is not known; so it is sought further and further before, up to the beginning.
        """
        back = 0.0
        while True:
            self.seek(time - back)
            found = self.frames()
            first = next(found, None)
            is_key = first is not None and first.key_frame and (first.time is None or first.time <= time)
            if is_key or time - back <= self.zero:
                return found if first is None else chain([first], found)
            back = max(FIRST_STEP_BACK, 2 * back)

    def upright(self, frame: VideoFrame) -> Image.Image:
        """A frame as players show it: turned, and widened where its pixels are not square."""
        picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
        oblong = self.track.sample_aspect_ratio
        if oblong and oblong != 1:
            picture = picture.resize((max(1, round(picture.width * oblong)), picture.height))
        return picture.rotate(frame.rotation, expand=True)

    def promised(self) -> float | None:
        """The length of the pictures that the header gives, in seconds from the start."""
        tag = headers.duration_tag(self.track.metadata.get("DURATION", ""))
        if tag is not None:
            return tag - self.zero
        if self.track.duration and self.track.time_base:
            return float((self.track.duration + (self.track.start_time or 0)) * self.track.time_base) - self.zero
        return self.container.duration / av.time_base if self.container.duration else None

    def end(self) -> float:
        """When the pictures end, in seconds from the start, by their last packet.

        That is found where the header says, else before it; where the header says nothing, in all packets.
        """
        promised = self.promised()
        if promised is None:
            return self._last(0.0) or 0.0
        end = self._last(promised)
        low, high = 0.0, promised
        while end is None and high - low > NEAR:  # the file was cut off, and behind its end there are no packets
            middle = (low + high) / 2
            end = self._last(middle)
            low, high = (middle, high) if end is not None else (low, middle)
        return min(end or 0.0, promised)

    def _last(self, since: float) -> float | None:
        """When the last packet ends that can be read from `since` on; None where none can."""
        if not self.seek(self.zero + since):
            return None
        last: float | None = None
        with suppress(av.error.FFmpegError):
            for packet in self.container.demux(self.track):
                cancel.check()
                if packet.pts is not None and packet.size:
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base) - self.zero
                    last = end if last is None else max(last, end)
        return last


@contextmanager
def opened(file: BinaryIO) -> Iterator[Film]:
    """The film in a file; the cover of a record is none. Raises InputError."""
    try:
        with cast(InputContainer, av.open(QuietFile(file), options=OPTIONS, metadata_errors="replace")) as container:
            moving = [s for s in container.streams.video if Disposition.attached_pic not in s.disposition]
            track = next((s for s in moving if s.codec_context is not None), None)
            if track is None and moving:
                raise InputError("its pictures are in a coding that is not supported", ADVICE)
            if track is None and container.streams.audio:
                raise InputError("there is no picture in it, only sound", "Give it a video.")
            if track is None:
                raise _unreadable(file)
            yield Film(container, track)
    except (av.error.FFmpegError, ValueError) as error:
        raise _unreadable(file) from error


def _unreadable(file: BinaryIO) -> InputError:
    if headers.lacks_index(file):
        return headers.without_index()
    return InputError("it is not a video that can be read", ADVICE)


def is_film_or_sound(file: BinaryIO) -> bool:
    """Whether a file begins as a video or a recording does, be it cut off."""
    try:
        with av.open(QuietFile(file), options=OPTIONS, metadata_errors="replace") as container:
            if container.streams.video or container.streams.audio:
                return True
    except (av.error.FFmpegError, ValueError):
        pass
    return headers.lacks_index(file)
