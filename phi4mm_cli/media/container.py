"""Compressed recordings and videos, decoded through PyAV: FLAC, MP3, Ogg, MP4, Matroska and what else people send.

Its decoders go on after a damaged frame, and its timestamps tell how much sound the damage has cost.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from numpy.typing import NDArray

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import headers
from phi4mm_cli.media.decode import EXACT, AudioInfo, QuietFile, Stretch, clock, mixed
from phi4mm_cli.media.headers import ADVICE

# What may be opened: formats that hold their own sound. Playlists (hls, concat, dash, sdp) name other files and
# addresses, which a recording that somebody was sent must not be able to open.
FORMATS = (
    "3dostr,aa,aac,ac3,ac4,adx,aiff,amr,amrnb,amrwb,ape,asf,au,avi,avr,bonk,caf,codec2,dsf,dss,dts,dtshd,dv,eac3,ea,"
    "flac,flv,gsm,gxf,iff,ircam,kux,live_flv,loas,matroska,webm,mlp,mov,mp4,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,"
    "nsv,nut,ogg,oma,osq,pvf,qcp,qoa,rm,shn,sln,sox,tak,truehd,tta,voc,w64,wav,wsd,wtv,wv,xwma"
)
OPTIONS = {"format_whitelist": FORMATS, "ignore_length": "1"}  # no WAV comes here whose header is right
# These headers hold no length, and ffmpeg guesses it from the size of the file.
LENGTHLESS = "aac ac3 ac4 amr amrnb amrwb adx dts dtshd eac3 gsm loas mlp truehd wav w64 au aiff"
GAP = 0.05  # seconds without sound in the timestamps that are filled with silence; less is rounding
JUMP = 1.0  # seconds; timestamps that go back further have been started anew
LONGEST_GAP = 3600.0  # seconds, where the header gives no length: timestamps that jump further are not believed
SLACK = 0.25  # seconds by which padding and rounding let a whole file miss its header's length
JOINED = ("ogg", "mpegts", "mpeg")  # which may be put one behind another, and then only tell of one
SEEKABLE = ("mov", "matroska", "flac", "ogg")  # others guess times from sizes, or give none after a leap
RUN_IN = 1.0  # seconds; Opus asks for 0.08, and the others for a packet or two
READ_ERRORS = 20  # in a row; then the rest of the file is given up


class ContainerDecoder:
    """The best sound track of a file; a `decode.Decoder`.

    Raises InputError where there is none, or where nothing of it can be decoded. The end of a file that was cut off
    goes unnoticed where neither a header, nor an index, nor a half packet gives it away: MP3 without a Xing header,
    raw AAC, AMR and AC-3 cut between two frames; AVI; MPEG-TS; WebM written live without a length.
    """

    def __init__(self, file: BinaryIO, misjudged: bool = False) -> None:
        """Open `file` and decode up to its first sound.

        `misjudged`: it is a WAV whose header gives a wrong length, and is read to the end of the file.
        """
        self._file = file
        self._mp3_length = headers.mp3_has_length(file)
        file.seek(0)
        self._reader = QuietFile(file)
        # Where it cannot seek, ffmpeg takes all that follows for sound, and does not search that for further chunks.
        source = _OneWay(self._reader) if misjudged else self._reader
        try:
            # Tags in any encoding must not keep a recording from being read.
            self._container = cast(InputContainer, av.open(source, options=OPTIONS, metadata_errors="replace"))
        except (av.error.FFmpegError, ValueError) as error:
            raise headers.not_a_recording(file) from error
        try:
            self._start()
        except BaseException:
            self._container.close()
            raise

    def _start(self) -> None:
        self._stream = self._best_stream()
        self._errors: list[float] = []  # where, in seconds of the stream's clock
        self._now = 0.0  # the stream's clock at the end of the last frame
        self._reached = 0.0  # how far any track went, by the stream's clock
        form = self._container.format.name
        self._tag = headers.duration_tag(self._stream.metadata.get("DURATION", ""))
        self._track_has_length = "mov" in form or form == "avi" or self._tag is not None
        frames = self._frames()
        first = next(frames, None)
        if first is None:
            raise InputError("no sound in it could be decoded", ADVICE)
        if first.format.name.startswith("s64"):  # of which PyAV makes no arrays
            raise InputError("its sound is in a coding that is not supported", ADVICE)
        self._frames_left = itertools.chain([first], frames)
        self._origin = self._begin = self._time_zero(first)
        self._length = self._promised()
        self._form = form.split(",")[0]
        self._is_continuous = form in ("flac", "mp3", "ogg")  # a gap in the time is no pause there: it is damage
        self._has_times = form not in LENGTHLESS.split()  # of its own; else ffmpeg counts at the first frame's rate
        form = f"{form.split(',')[0]} {self._stream.codec_context.name}"
        tracks = [track.index for track in self._container.streams.audio]
        self.info = AudioInfo(
            self._length,
            first.sample_rate,
            first.layout.nb_channels,
            form,
            self._form not in JOINED,
            1 + tracks.index(self._stream.index),
            len(tracks),
        )

    def _best_stream(self) -> AudioStream:
        # In a transport stream, the best one is known only once it has been decoded.
        stream = self._container.streams.best("audio") or next(iter(self._container.streams.audio), None)
        if stream is None:
            raise InputError("it has no sound track", ADVICE)
        if stream.codec_context is None:
            raise InputError("its sound is in a coding that is not supported", ADVICE)
        return cast(AudioStream, stream)

    @property
    def _videos(self) -> list[Any]:
        return [s for s in self._container.streams.video if Disposition.attached_pic not in s.disposition]

    def _time_zero(self, first: AudioFrame) -> float:
        """The time on the stream's clock that a player shows as 0:00."""
        tracks = [self._stream, *self._videos]
        starts = [float(track.start_time * track.time_base) for track in tracks if track.start_time is not None]
        return min(starts, default=first.time or 0.0)

    def _promised(self) -> float | None:
        """The length that the header gives, in seconds from time zero."""
        container, stream = self._container, self._stream
        form = container.format.name
        if form in LENGTHLESS.split() or (form == "mp3" and not self._mp3_length):
            return None
        if self._tag is not None:
            return self._tag - self._origin
        if self._track_has_length:
            if not stream.duration or stream.time_base is None:
                return None
            return float((stream.duration + (stream.start_time or 0)) * stream.time_base) - self._origin
        return container.duration / av.time_base if container.duration else None

    def _packets(self) -> Iterator[Any]:
        """Every packet of the sound track, and a last empty one; of all tracks where only the file has a length."""
        streams = [self._stream] if self._track_has_length else [self._stream, *self._videos]
        failures = 0
        while failures < READ_ERRORS:
            try:
                for packet in self._container.demux(*streams):
                    failures = 0
                    if packet.pts is not None:
                        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                        self._reached = max(self._reached, end)
                    if packet.stream.index == self._stream.index:
                        yield packet
                return
            except IndexError:  # PyAV cannot flush tracks that appeared on the way
                break
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                failures += 1
                self._note_error()
        yield None

    def _frames(self) -> Iterator[AudioFrame]:
        for packet in self._packets():
            try:
                yield from packet.decode() if packet else self._stream.codec_context.decode(None)
            except av.error.FFmpegError:
                self._note_error()

    def _note_error(self) -> None:
        self._errors.append(self._now)

    def mono(self, channel: int | None) -> Iterator[Stretch]:
        """The sound from time zero, frame by frame, silence where the timestamps say that sound is missing."""
        self._now = self._begin
        least = 0.0  # the first sound starts when it starts, to the sample
        for frame in self._frames_left:
            rate, time = frame.sample_rate, frame.time if self._has_times else None
            if time is not None and not -JUMP < time - self._now <= least:
                if self._is_believable(time):
                    if self._is_continuous and least:
                        self._note_error()
                    yield from _silence(round((time - self._now) * rate), rate)
                self._now = time
            yield mixed(_samples(frame), channel), rate
            self._now += frame.samples / rate
            least = GAP

    def _is_believable(self, time: float) -> bool:
        """Whether sound may be missing up to `time`; if not, the timestamps have been started anew or are damaged."""
        if self._length is None:
            return time - self._now < LONGEST_GAP
        return time - self._origin < self._length + JUMP

    def seek(self, seconds: float) -> float | None:
        """To a packet that the coding has run in from by `seconds`, in the containers whose times can be relied on."""
        if self._form not in SEEKABLE or seconds <= RUN_IN or self._stream.time_base is None:
            return 0.0
        wanted = self._origin + seconds - RUN_IN
        if self._form == "ogg" and self._is_chained():  # ffmpeg would end with the stream that it came to
            return 0.0
        try:
            self._container.seek(int(wanted / self._stream.time_base), stream=self._stream)
        except av.error.FFmpegError:
            return None
        frames = self._frames()
        first = next((frame for frame in frames if frame.time is not None), None)
        if first is None or first.time is None or not self._origin <= first.time <= self._origin + seconds:
            return None
        self._begin = first.time
        self._frames_left = itertools.chain([first], frames)
        return self._begin - self._origin

    def _is_chained(self) -> bool:
        place = self._file.tell()
        try:
            return headers.is_chained(self._file)
        finally:
            self._file.seek(place)

    def damage(self, seconds: float, is_end: bool = True) -> str | None:
        """Why the `seconds` that came out are not the whole recording."""
        # An error behind the last sound is a tag or padding, unless the file gives no length to compare with.
        errors = [at for at in self._errors if at < self._now or self._length is None]
        if self._reader.error:
            return self._reader.error
        reached = max(seconds, self._reached - self._origin)
        if (
            is_end
            and self._length is not None
            and reached < self._length - (SLACK if self._stream.codec_context.name != "flac" else EXACT)
        ):
            return f"it ends at {clock(seconds)}, but its header promises {clock(self._length)}"
        if is_end and headers.is_cut_off(self._file):
            return f"the file was cut off at {clock(seconds)}"
        if errors:
            places = "1 place" if len(errors) == 1 else f"{len(errors)} places"
            return f"it is damaged in {places}, first near {clock(errors[0] - self._origin)}"
        return None

    def close(self) -> None:
        """Free the decoder."""
        self._container.close()


class _OneWay:
    def __init__(self, file: QuietFile) -> None:
        self.read = file.read


def _samples(frame: AudioFrame) -> NDArray[np.float32]:
    """The samples of a frame, whatever their type, as float32 (channels, samples) in [-1, 1]."""
    values: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    samples: NDArray[np.float32] = values.astype(np.float32, copy=False)
    if values.dtype.kind != "f":
        full_scale = 1 << (8 * values.itemsize - 1)
        np.divide(samples, full_scale, out=samples)
        samples -= values.dtype.kind == "u"  # unsigned samples have their zero in the middle
    return samples


def _silence(count: int, rate: int) -> Iterator[Stretch]:
    """`count` samples of silence in pieces of a second: a gap may be an hour long."""
    for start in range(0, count, rate):
        yield np.zeros(min(rate, count - start), np.float32), rate
