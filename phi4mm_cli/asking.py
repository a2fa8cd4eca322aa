"""What the commands that are asked a question share: what is asked, and the model that flows are run with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from phi4mm_cli import console
from phi4mm_cli.driver import Job, run
from phi4mm_cli.engines import Engine
from phi4mm_cli.errors import InputError
from phi4mm_cli.flow import Flow
from phi4mm_cli.options import EngineOptions, LogOptions
from phi4mm_cli.outputs import Usage
from phi4mm_cli.report import Loading, display
from phi4mm_cli.schema import Clip, Message, ModelInfo, Part, Picture

T = TypeVar("T")


def question(words: str | None, images: list[Path], recordings: list[Path]) -> Message:
    """The user's turn: pictures, recordings, words, in the order that the model knows. Raises InputError."""
    media: list[Part] = [_read(path, _picture) for path in images]
    media += [_read(path, _clip) for path in recordings]
    return Message("user", (*media, words) if words else tuple(media))


def _read(path: Path, read: Callable[[Path], Part]) -> Part:
    try:
        return read(path)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.advice) from None


def _picture(path: Path) -> Picture:
    from phi4mm_cli.media import audio, image

    image.image_size(path)
    return Picture(audio.source(path))


def _clip(path: Path) -> Clip:
    from phi4mm_cli.media import audio

    with audio.open_recording(audio.source(path)) as recording:
        for _ in recording.blocks():  # headers are not always right about the length
            pass
        return Clip(recording.source, 0.0, recording.seconds)


class Asking:
    """Runs flows with an engine, one after another, and counts what they cost."""

    def __init__(self, engine: Engine, loading: Loading, log: LogOptions) -> None:
        self._engine, self._loading, self._quiet = engine, loading, log.quiet
        self.usage = Usage(0, 0, 0)

    @property
    def info(self) -> ModelInfo:
        """What is recorded about the model."""
        return self._engine.info

    def ask(self, flow: Flow[T]) -> T:
        """The value of the flow. Raises what it raises."""
        with display({"answer": None}, "the model", self._quiet) as bar:
            self._loading.bar = bar
            [outcome] = run([Job("answer", lambda: flow)], self._engine)
        spent, usage = outcome.usage, self.usage
        self.usage = Usage(
            usage.calls + spent.calls,
            usage.prompt_tokens + spent.prompt_tokens,
            usage.completion_tokens + spent.completion_tokens,
        )
        if outcome.error is not None:
            raise outcome.error
        assert outcome.value is not None
        return outcome.value


@contextmanager
def asking(options: EngineOptions, log: LogOptions) -> Iterator[Asking]:
    """The model that `options` choose, not yet loaded. Raises UsageError, MissingError."""
    loading = Loading(log)
    with options.open(loading) as engine:
        if engine.profile.notice and not log.quiet:
            console.say(engine.profile.notice)
        yield Asking(engine, loading, log)
