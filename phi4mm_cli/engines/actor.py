"""What runs on the nodes of a cluster: a local engine within an actor of Ray, and the media that were sent to it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import ray

from phi4mm_cli import __version__
from phi4mm_cli.engines.local import Outcome
from phi4mm_cli.engines.worker import answer
from phi4mm_cli.errors import DeviceLostError, MissingError, Phi4Error, RequestError
from phi4mm_cli.model.checkpoint import Adapters, resolve
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Source

KEPT_BYTES = 4 << 30  # of media that were sent; more are held only where one batch needs them

Parcels = Mapping[Source, Sequence[Any]]  # references to the pieces of files


class Actor:
    """A local engine in a thread of its own; messages come and go in two others, which Ray has.

    The process ends where the engine meets a bug, so that whoever listens notices.
    """

    def __init__(
        self, version: str, model: str, revision: str | None, adapters: Adapters, settings: dict[str, Any]
    ) -> None:
        self._inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._outbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._media = _Media()
        Thread(target=self._run, args=(version, model, revision, adapters, settings), daemon=True).start()

    def tell(self, message: tuple[str, Any]) -> None:
        """Give the engine a message."""
        self._inbox.put(message)

    def hear(self) -> list[tuple[str, Any]]:
        """What the engine has said since the last call, once it has said something."""
        messages = [self._outbox.get()]
        while True:
            try:
                messages.append(self._outbox.get_nowait())
            except Empty:
                return messages

    def end(self) -> None:
        """Leave nothing behind, whatever the engine is at: the process is ended next."""
        self._media.clear()

    def _run(
        self, version: str, model: str, revision: str | None, adapters: Adapters, settings: dict[str, Any]
    ) -> None:
        try:
            if version != __version__:
                message = f"{platform.node()} has phi4mm {__version__}, and this machine {version}"
                raise MissingError(message, "Install the same version on every node")
            checkpoint = resolve(model, revision, adapters)
            import torch

            alone = settings["device"] != "cpu" and torch.cuda.is_available()  # with its GPU
            node = ray.get_runtime_context().get_node_id()
            self._outbox.put(("ready", (platform.node(), f"{node} {os.getpid()}" if alone else node)))
            answer(_End(self._inbox, self._outbox, self._media), checkpoint, settings)
        except DeviceLostError as error:
            sys.stderr.write(f"{error}\n")  # the log of this process
            os._exit(error.exit_code)
        except Phi4Error as error:
            self._outbox.put(("failed", type(error)(f"on {platform.node()}: {error.message}", error.advice)))
        except BaseException:  # noqa: BLE001 - the log of this process has it, and that the process ends shows it
            traceback.print_exc()
            os._exit(1)


class _End:
    """The engine's end of the line. It sees requests whose media are files here; others know them by their own keys."""

    def __init__(
        self, inbox: SimpleQueue[tuple[str, Any]], outbox: SimpleQueue[tuple[str, Any]], media: _Media
    ) -> None:
        self._inbox, self._outbox, self._media = inbox, outbox, media
        self._asked: dict[str, Request] = {}  # by the keys that the engine knows

    def send(self, message: tuple[str, Any]) -> None:
        """Take the engine's word to whoever listens."""
        kind, content = message
        if kind == "outcomes":
            outcomes, *rest = content
            content = ([self._outcome(key, outcome) for key, outcome in outcomes], *rest)
        elif isinstance(content, RequestError):  # of a stream
            [request] = self._asked.values()
            content = self._media.told(content, request)
        self._outbox.put((kind, content))

    def recv(self) -> tuple[str, Any]:
        """The next message to the engine, once there is one."""
        kind, content = self._inbox.get()
        if kind in ("batch", "stream"):
            requests, parcels = content
            here = self._media.placed(requests, parcels)
            self._asked = {new.key: old for new, old in zip(here, requests, strict=True)}
            content = here if kind == "batch" else here[0]
        return kind, content

    def poll(self) -> bool:
        """Whether there is one now."""
        return not self._inbox.empty()

    def _outcome(self, key: str, outcome: Outcome) -> tuple[str, Outcome]:
        request = self._asked[key]
        return request.key, self._media.told(outcome, request) if isinstance(outcome, RequestError) else outcome


class _Media:
    """The files that were sent, in a folder that is made for the first, the last used longest."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._files: dict[Source, Path] = {}

    def placed(self, requests: Sequence[Request], parcels: Parcels) -> list[Request]:
        """The requests, about files here where those were sent."""
        for source, pieces in parcels.items():
            self._files[source] = self._files.pop(source) if source in self._files else self._written(pieces)
        for source in [*self._files]:
            if sum(kept.size for kept in self._files) > KEPT_BYTES and source not in parcels:
                self._files.pop(source).unlink()
        return [self._about_files(request) for request in requests]

    def told(self, error: RequestError, request: Request) -> RequestError:
        """The error in terms of the files as they are where the request was made."""
        message = error.message
        for source in request.sources:
            if source in self._files and source.size and not self._files[source].stat().st_size:
                return type(error)(f"{source.path} could not be read when it was to be sent", "Check that it is there")
            if source in self._files:
                message = message.replace(str(self._files[source]), source.path)
            elif not Path(source.path).exists():
                advice = "Share the disk with every node of the cluster, or use --ship-media"
                return type(error)(f"{source.path} is not on {platform.node()}", advice)
        return type(error)(message, error.advice)

    def clear(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _written(self, pieces: Sequence[Any]) -> Path:
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="phi4mm-media-"))
        path = self._folder / os.urandom(8).hex()
        with path.open("wb") as file:
            for piece in pieces:
                file.write(ray.get(piece))
        return path

    def _about_files(self, request: Request) -> Request:
        def here(part: Part) -> Part:
            if isinstance(part, (Clip, Picture)) and part.source in self._files:
                return replace(part, source=replace(part.source, path=str(self._files[part.source])))
            return part

        messages = tuple(Message(message.role, tuple(map(here, message.parts))) for message in request.messages)
        return replace(request, messages=messages)
