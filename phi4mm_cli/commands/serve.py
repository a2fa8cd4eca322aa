"""`phi4mm serve`: the model behind a small OpenAI-compatible server."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from phi4mm_cli import console
from phi4mm_cli.engine_options import EngineName, EngineOptions
from phi4mm_cli.engines import Engine
from phi4mm_cli.engines.devices import device_names
from phi4mm_cli.errors import MissingError, Phi4Error, UsageError
from phi4mm_cli.options import SECONDS, LogOptions, option, require_ranges, with_shared
from phi4mm_cli.report import Loading, display
from phi4mm_cli.schema import Message, Request, Sampling

if TYPE_CHECKING:
    import uvicorn

KEY_VARIABLE = "PHI4MM_API_KEY"
MOST_STREAMS = 4  # answers that are streamed at once; others wait for their turn

EXAMPLES = """
[b]Examples[/b]

phi4mm serve

phi4mm serve --model demo --port 9000

curl http://127.0.0.1:8000/v1/audio/transcriptions -F file=@talk.mp3 -F response_format=srt

phi4mm serve --host 0.0.0.0 --api-key-file key.txt
"""


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """What clients may ask for. Raises UsageError where a value is out of its range."""

    max_body_mb: Annotated[
        int, option("--max-body-mb", panel="Limits", help="Largest request, its recordings included.")
    ] = 200
    max_seconds: Annotated[
        float, option("--max-seconds", panel="Limits", help="Longest time that a request may take.")
    ] = 600.0
    max_queue: Annotated[
        int, option("--max-queue", panel="Limits", help="Requests at once; those beyond are told to come again.")
    ] = 64

    def __post_init__(self) -> None:
        require_ranges(self, {"max_body_mb": (1, 100000), "max_seconds": SECONDS, "max_queue": (1, 10000)})


@with_shared
def command(
    engine: EngineOptions,
    limits: LimitOptions,
    log: LogOptions,
    host: Annotated[str, option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, option("--port", help="The port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        option("--api-key-file", help=f"A file with the key that clients must have; or {KEY_VARIABLE} has it."),
    ] = None,
) -> None:
    """Serve the model to OpenAI clients: chat with sound and pictures, and transcription."""
    _require_packages()
    key = _key(api_key_file)
    with ExitStack() as stack:
        listener = stack.enter_context(_bound(host, port))
        is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        if not is_local and key is None:
            advice = f"Set {KEY_VARIABLE} or give --api-key-file, or leave --host out"
            raise UsageError(f"{host} can be reached from other machines, and there is no key", advice)
        loading = Loading(log)
        opened = stack.enter_context(engine.open(loading))
        with display({"answer": None}, "the model", log.quiet) as bar:
            loading.bar = bar
            _warm(opened)
        _serve(opened, engine, listener, limits, key, is_local, log)


def _serve(
    opened: Engine,
    engine: EngineOptions,
    listener: socket.socket,
    limits: LimitOptions,
    key: str | None,
    is_local: bool,
    log: LogOptions,
) -> None:
    from phi4mm_cli.serving.app import application, served
    from phi4mm_cli.serving.gate import Limits
    from phi4mm_cli.serving.names import Names
    from phi4mm_cli.serving.shared import SharedEngine
    from phi4mm_cli.serving.uploads import Uploads

    def batch(size: int) -> None:
        if log.verbose and size > 1:
            console.say(f"{size} answered together")

    with ExitStack() as stack:
        uploads = Uploads()
        stack.callback(uploads.close)
        shared = SharedEngine(opened, _most_streams(engine), batch)
        allowed = Limits(limits.max_body_mb * 1000000, limits.max_seconds, limits.max_queue)
        names = Names(opened.info.id, opened.profile)
        gate = application(shared, uploads, names, allowed, key, is_local, not log.quiet)
        with served(gate, listener, shared) as server:
            _end_on_signals(server)
            address, port = listener.getsockname()[:2]
            where = f"[{address}]" if ":" in address else address
            console.say(f"{opened.info.id} at http://{where}:{port}/v1 (Ctrl-C ends it)")
            shared.run()


def _most_streams(engine: EngineOptions) -> int:
    """How many answers may be streamed at once: each keeps a device to itself, and one is left for batches."""
    if engine.engine is EngineName.RAY:
        return 1
    alone = engine.engine is not EngineName.LOCAL or engine.device_map is not None
    devices = 1 if alone else len(device_names(engine.device))
    return MOST_STREAMS if devices == 1 else devices - 1


def _end_on_signals(server: uvicorn.Server) -> None:
    """The first Ctrl-C or SIGTERM lets what is in hand end; the second ends the program as always."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True
        for each, handler in before.items():
            signal.signal(each, handler)
        console.say("ending; answers in hand are finished, again ends it at once")

    for number in before:
        signal.signal(number, end)


def _require_packages() -> None:
    try:
        import python_multipart  # noqa: F401 - what Starlette reads forms with
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingError(f"serve needs the package {error.name}", "Run `pip install 'phi4mm[serve]'`") from None


def _key(path: Path | None) -> str | None:
    """The key that clients must have, None where they need none. Raises UsageError."""
    if path is None:
        key = os.environ.get(KEY_VARIABLE, "")
        if not key:
            return None
    else:
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise UsageError(f"cannot read the key from {path}: {reason}", "Name a file with the key in it") from None
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"{path or KEY_VARIABLE} holds no key", "A key is one line of ASCII characters without spaces")
    return key


def _bound(host: str, port: int) -> socket.socket:
    """A socket at that address, which does not listen yet. Raises UsageError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise UsageError(f"cannot listen at {host} port {port}: {reason}", "Choose another --port or --host") from None
    return listener


def _warm(engine: Engine) -> None:
    """Have the model loaded by a first request, so that clients need not wait, or be told that it does not work."""
    engine.submit(Request((Message("user", ("Hello",)),), Sampling(1)))
    while not (outcomes := engine.poll()):
        pass
    for _, outcome in outcomes:
        if isinstance(outcome, Phi4Error):
            raise outcome
