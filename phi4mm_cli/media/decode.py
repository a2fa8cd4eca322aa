"""What every decoder of recordings offers, and the one for uncompressed formats, through libsndfile."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import soundfile
from numpy.typing import NDArray

from phi4mm_cli.errors import InputError
from phi4mm_cli.media import headers

BLOCK_SECONDS = 4
CANCELLED = 0.01  # of the power that unlike channels have together: less, and they are each other's reverse
EXACT = 0.01  # seconds by which a file whose length is exact may miss its header without a word

Stretch = tuple[NDArray[np.float32], int]  # mono samples, and their rate in Hz


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a recording says about its sound."""

    seconds: float | None  # None: the header does not know
    rate: int  # Hz
    channels: int
    format: str  # the container and the coding, as the decoder calls them: "wav pcm_16", "mov aac"
    is_certain: bool = True  # the header tells of all the sound there is
    track: int = 1  # the one that is heard, counted from 1 ...
    tracks: int = 1  # ... of so many


class Decoder(Protocol):
    """A recording that is being decoded."""

    info: AudioInfo

    def mono(self, channel: int | None) -> Iterator[Stretch]:
        """All its sound, once, in pieces of any length: one channel (counted from 1), or the mean of all."""

    def seek(self, seconds: float) -> float | None:
        """Before mono(): makes it begin at or before `seconds`, and says where; None where it cannot any more."""

    def damage(self, seconds: float, is_end: bool = True) -> str | None:
        """After mono(): what is missing up to `seconds`, where it ended; None if nothing is.

        Without `is_end` nobody wanted more, and the length that the header promises does not count.
        """

    def close(self) -> None:
        """Free the decoder; the file stays open."""


class QuietFile:
    """A file as the decoders read it: where the disk or a damaged header fails them, it ends, and nothing is printed.

    Both soundfile and PyAV print the exceptions that a file raises inside them.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.tell = file.tell
        self.error: str | None = None  # what kept the file from being read to its end

    def read(self, count: int = -1) -> bytes:
        """Up to `count` bytes; none at the end of the file and where it cannot be read."""
        try:
            return self._file.read(count)
        except OSError as error:
            self.error = f"it cannot be read to its end: {error.strerror}"
            return b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """The new position; -1 where there is no such place."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


class PcmDecoder:
    """WAV, AIFF, AU, CAF, W64 and their kin through libsndfile; a `Decoder`. Raises soundfile.LibsndfileError."""

    def __init__(self, file: BinaryIO) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._file = QuietFile(file)
        self._sound = sound = soundfile.SoundFile(self._file)
        self._problem: str | None = None
        share = headers.promised_share(sound.extra_info)
        seconds = None if share is None else share * sound.frames / sound.samplerate
        # A WAV from a pipe may give its length as 0, and one beyond 4 GiB what is left over from that.
        self.is_misjudged = sound.frames == 0 or headers.is_overfull(sound.extra_info, size)
        form = f"{sound.format} {sound.subtype}".lower()
        self.info = AudioInfo(seconds, sound.samplerate, sound.channels, form)

    def mono(self, channel: int | None) -> Iterator[Stretch]:
        """The sound in blocks of some seconds."""
        rate = self._sound.samplerate
        while True:
            try:
                block = self._sound.read(BLOCK_SECONDS * rate, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                self._problem = f"it is damaged: {error.error_string}"
                return
            if not len(block):
                return
            yield mixed(block.T, channel), rate

    def seek(self, seconds: float) -> float | None:
        """To the frame."""
        if not self._sound.seekable():
            return 0.0
        try:
            frame: int = self._sound.seek(min(int(seconds * self.info.rate), self._sound.frames))
        except soundfile.LibsndfileError:
            return None
        return frame / self.info.rate

    def damage(self, seconds: float, is_end: bool = True) -> str | None:
        """That the file is shorter than its header promises."""
        promised = self.info.seconds
        if self._file.error:
            return self._file.error
        if is_end and promised is not None and seconds < promised - EXACT:
            return f"it ends at {clock(seconds)}, but its header promises {clock(promised)}"
        return self._problem

    def close(self) -> None:
        """Free the decoder."""
        self._sound.close()


def open_file(path: Path) -> BinaryIO:
    """A media file, opened for reading. Raises InputError where it is not a file that has anything in it."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError("it is a folder, not a file", "Name the files in it.")
        if not stat.S_ISREG(status.st_mode):
            raise InputError("it is not a regular file", "Save it to a file first.")
        if status.st_size == 0:
            raise InputError("the file is empty (0 bytes)", "Copy or record it again.")
        return path.open("rb")
    except FileNotFoundError as error:
        raise InputError("there is no such file", "Check its name and its folder.") from error
    except PermissionError as error:
        raise InputError("you may not read it", "Change its permissions, or ask its owner.") from error
    except OSError as error:
        raise InputError(f"it cannot be opened: {error.strerror}", "Check the disk it is on.") from error


def mixed(channels: NDArray[np.float32], channel: int | None) -> NDArray[np.float32]:
    """One channel (counted from 1), or the mean of all, of samples shaped (channels, samples).

    A track whose number of channels changes on the way may not have `channel` any more: then it is the mean too.
    Where channels take each other's sound away in the mean, one being the other's reverse, it is the loudest of them.
    """
    if len(channels) == 1:
        channel = 1
    if channel is not None and channel <= len(channels):
        picked: NDArray[np.float32] = channels[channel - 1]
        return picked
    channels = np.clip(np.nan_to_num(channels), -1.0, 1.0)  # a channel of NaN must not silence the others
    mean: NDArray[np.float32] = np.mean(channels, axis=0, dtype=np.float32)
    power = np.square(channels).mean(axis=1)
    if mean.size and np.square(mean).mean() < CANCELLED * power.mean() / len(channels):
        loudest: NDArray[np.float32] = channels[int(power.argmax())]
        return loudest
    return mean


def clock(seconds: float) -> str:
    """A time for people: 1:02:03.4."""
    minutes, rest = divmod(round(max(seconds, 0.0), 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
