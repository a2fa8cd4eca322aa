"""The connection to a Ray cluster: made, missed when it is lost, and left in bounded time."""

from __future__ import annotations

import atexit
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import ray

from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.folder import in_a_line

CONNECT_SECONDS = 5.0  # for the first answer of a head node
ATTEMPTS = 3  # a head node may fail to start the process that speaks for a client: one in six did on a busy machine
FAREWELL = 30.0  # seconds that leaving may take


def connect(address: str) -> None:
    """Make this process part of the cluster at `address`, or a client of it. Raises MissingError, UsageError."""
    advice = "Start one (`ray start --head`), or give --address ray://HOST:10001"
    if address != "auto":
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if not colon or not port.isdecimal():
            raise UsageError(f"--address is auto, ray://HOST:PORT or HOST:PORT, not '{address}'")
        try:
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except OSError as error:  # before Ray, which tries for minutes
            raise MissingError(f"nothing answers at {address}: {error.strerror or error}", advice) from error
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _begin(address, ATTEMPTS)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        where = "on this machine" if address == "auto" else f"at {address}"
        raise MissingError(f"there is no Ray cluster {where}: {in_a_line(error)}", advice) from error
    finally:
        if threading.current_thread() is threading.main_thread():  # Ray has put its own in their place
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _begin(address: str, attempts: int) -> None:
    """Raises what Ray does."""
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL)
    except ConnectionError as error:
        if attempts == 1 or "Initialization failure" not in str(error):
            raise
        _begin(address, attempts - 1)


@contextmanager
def connected() -> Iterator[None]:
    """What is done within needs the cluster. Raises MissingError where that is lost.

    Ray is not asked without a connection: it would begin a cluster of its own.
    """
    advice = "What is done is kept: look after the cluster, and repeat the command"
    if not ray.is_initialized():
        raise MissingError("the connection to the Ray cluster is lost", advice)
    try:
        yield
    except (ConnectionError, grpc.RpcError) as error:
        raise MissingError("the connection to the Ray cluster is lost", advice) from error


def leave(farewell: Callable[[], None]) -> None:
    """Say `farewell`, for as long as that may take: Ray's client waits for ever for a head node that says no more.

    The cluster ends by itself what belongs to a process that is gone.
    """
    words = threading.Thread(target=farewell, name="farewell", daemon=True)
    words.start()
    try:
        words.join(FAREWELL)
    finally:
        if words.is_alive():
            atexit.unregister(ray.shutdown)  # which would wait just so
