"""The options of what is looked at in a video, in a group like those of `options.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from phi4mm_cli import ranges
from phi4mm_cli.errors import UsageError
from phi4mm_cli.media import FRAMES
from phi4mm_cli.options import option, require_ranges
from phi4mm_cli.showing import MOST_PICTURES

if TYPE_CHECKING:
    from phi4mm_cli.media.video import Choice


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """Which frames are looked at, and whether they are heard too. Raises UsageError where a value makes no sense."""

    frames: Annotated[
        int | None,
        option("--frames", panel="Video", help="Look at so many frames, up to 64.", show_default=str(FRAMES)),
    ] = None
    every: Annotated[
        str | None, option("--every", panel="Video", metavar="5s", help="Look at a frame every so often.")
    ] = None
    scenes: Annotated[
        bool, option("--scenes", panel="Video", help="Look at a frame of each scene, of at most --frames scenes.")
    ] = False
    sound: Annotated[bool, option("--sound/--no-sound", panel="Video", help="Hear the sound track too.")] = False

    def __post_init__(self) -> None:
        require_ranges(self, {"frames": (1, MOST_PICTURES)})
        if self.every is not None and self.scenes:
            raise UsageError("--every and --scenes are two ways to choose frames", "Leave one of them out")
        if self._step is not None and not self._step > 0:
            raise UsageError(f"--every is a time above 0, not '{self.every}'")

    @property
    def _step(self) -> float | None:
        return None if self.every is None else ranges.seconds(self.every)

    @property
    def given(self) -> bool:
        """Whether frames are asked for at all."""
        return self.frames is not None or self.every is not None or self.scenes

    def choice(self, spans: Sequence[ranges.Span]) -> Choice:
        """The frames within `spans`."""
        from phi4mm_cli.media.video import Choice

        most = self.frames or (MOST_PICTURES if self.every is not None else FRAMES)
        return Choice(most, self._step, self.scenes, tuple(spans))

    def recorded(self) -> dict[str, str | int | bool]:
        """What is not at its default."""
        chosen = {
            "frames": self.frames,
            "every": self.every,
            "scenes": self.scenes or None,
            "sound": self.sound or None,
        }
        return {name: value for name, value in chosen.items() if value is not None}
