"""What the commands that are asked a question share: the model that flows are run with, and that streams answers."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from typing import TypeVar

from phi4mm_cli.display import Display, display
from phi4mm_cli.driver import run
from phi4mm_cli.engine_options import EngineOptions
from phi4mm_cli.engines import Engine
from phi4mm_cli.flow import Flow
from phi4mm_cli.jobs import Job
from phi4mm_cli.options import LogOptions
from phi4mm_cli.outputs import Usage
from phi4mm_cli.report import Loading
from phi4mm_cli.schema import ModelInfo, Profile, Remark, Request, Result

T = TypeVar("T")


class Asking:
    """Runs flows with an engine, one after another, and counts what they cost."""

    def __init__(self, engine: Engine, loading: Loading, log: LogOptions) -> None:
        self._engine, self._loading, self._quiet = engine, loading, log.quiet
        self.usage = Usage(0, 0, 0)
        self.remarks: dict[Remark, None] = {}  # of the engine, each once

    @property
    def info(self) -> ModelInfo:
        """What is recorded about the model."""
        return self._engine.info

    @property
    def profile(self) -> Profile:
        """What the checkpoint says of itself."""
        return self._engine.profile

    @property
    def count_tokens(self) -> Callable[[str], int]:
        """How many tokens a text is. Loads no weights."""
        return self._engine.count_tokens

    def ask(self, flow: Flow[T]) -> T:
        """The value of the flow. Raises what it raises."""
        with self._display("the model") as bar:
            self._loading.bar = bar
            [outcome] = run([Job("answer", lambda: flow)], self._engine)
        self.usage += outcome.usage
        self.remarks |= dict.fromkeys(outcome.remarks)
        if outcome.error is not None:
            raise outcome.error
        assert outcome.value is not None
        return outcome.value

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """The answer to one request, piece by piece. Closing it ends the work. Raises RequestError."""
        with closing(self._engine.stream(request)) as answer, ExitStack() as waiting:
            self._loading.bar = waiting.enter_context(self._display("thinking"))
            while True:
                try:
                    piece = next(answer)
                except StopIteration as end:
                    result: Result = end.value
                    break
                waiting.close()  # the answer itself shows that the model is at work
                yield piece
        self.usage += Usage(1, result.prompt_tokens, len(result.tokens))
        self.remarks |= dict.fromkeys(result.remarks)
        return result

    def _display(self, title: str) -> AbstractContextManager[Display]:
        """Shows that the model is at work, and until the first answer that it may have to be loaded."""
        return display({"answer": None}, title, self._quiet, starts=not self.usage.calls)


@contextmanager
def asking(options: EngineOptions, log: LogOptions) -> Iterator[Asking]:
    """The model that `options` choose, not yet loaded. Raises UsageError, MissingError."""
    loading = Loading(log)
    with options.open(loading) as engine:
        yield Asking(engine, loading, log)
