"""HTTP with bounds: how long an exchange may take, how much a server may say, and where the key may go."""

from __future__ import annotations

import asyncio
import socket
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urljoin, urlsplit

import httpx2

from phi4mm_cli.errors import MissingError

MOST_BYTES = 16 << 20  # of an answer; the longest that the model can write is a hundredth of it
MOST_LINE = 1 << 20  # bytes of one line of a stream
CONNECT_SECONDS = 10.0
IDLE_SECONDS = 2.0  # that a connection is kept for the next request; servers close them after 5

Kind = Literal[
    "unreachable",  # nobody listens there
    "cut",  # the connection was lost half-way
    "slow",  # the answer did not come in time
    "broken",  # what came is not what the protocol has
]


class FaultError(Exception):
    """An exchange came to nothing; `detail` is a short reason, and nothing that was sent is in it."""

    def __init__(self, kind: Kind, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]  # names in small letters
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is what was asked for."""
        return self.status == 200

    @property
    def to_wait(self) -> float | None:
        """Seconds that the server asks to be left alone for; None where it does not say, or not in seconds."""
        try:
            return max(0.0, float(self.headers.get("retry-after", "")))
        except ValueError:
            return None


class Transport:
    """An HTTP client that follows no redirect and believes no length. Raises FaultError. Lives in one event loop.

    Those of `urls` that are of this machine are never asked for through a proxy.
    """

    def __init__(self, urls: Sequence[str], key: str | None, most_connections: int, seconds: float) -> None:
        headers = {"Accept-Encoding": "identity", "User-Agent": "phi4mm"}  # what is not packed cannot swell
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._seconds = seconds
        try:
            self._client = httpx2.AsyncClient(
                headers=headers,
                follow_redirects=False,  # another host must not get the key
                timeout=httpx2.Timeout(None, connect=min(CONNECT_SECONDS, seconds)),
                limits=httpx2.Limits(max_connections=most_connections, keepalive_expiry=IDLE_SECONDS),
                mounts={urljoin(url, "/"): None for url in urls if is_here(url)},
            )
        except (ValueError, ImportError) as error:
            advice = "Check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            raise MissingError("the proxy that the environment names cannot be used", advice) from error

    async def get(self, url: str, seconds: float) -> Reply:
        """GET, in at most so many seconds."""
        async with self._within(seconds), self._opened("GET", url, None) as response:
            return await _whole(response)

    async def post(self, url: str, body: bytes, seconds: float | None = None) -> Reply:
        """POST of JSON, in at most so many seconds."""
        async with self._within(seconds or self._seconds), self._opened("POST", url, body) as response:
            return await _whole(response)

    async def events(self, url: str, body: bytes) -> AsyncGenerator[Reply | str]:
        """POST of JSON that is answered with server-sent events: the data of each. Or else one Reply, and no more."""
        async with self._within(self._seconds), self._opened("POST", url, body) as response:
            kind = response.headers.get("content-type", "")
            if response.status_code != 200 or not kind.startswith("text/event-stream"):
                yield await _whole(response)
                return
            async for event in _events(response):
                yield event

    @asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        """Faults for what httpx raises, and for what has not ended after so many seconds, however it drips."""
        try:
            async with asyncio.timeout(seconds):
                yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            raise FaultError("unreachable", _reason(error)) from None
        except (TimeoutError, httpx2.TimeoutException):
            raise FaultError("slow", f"no answer in {seconds:g} s") from None
        except httpx2.RemoteProtocolError as error:
            kind: Kind = "cut" if "disconnected" in str(error) or "closed" in str(error) else "broken"
            raise FaultError(kind, "it is no HTTP" if kind == "broken" else "the connection was closed") from None
        except httpx2.TransportError:
            raise FaultError("cut", "the connection was lost") from None
        except httpx2.HTTPError as error:
            raise FaultError("broken", type(error).__name__) from None

    @asynccontextmanager
    async def _opened(self, method: str, url: str, body: bytes | None) -> AsyncIterator[httpx2.Response]:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        async with self._client.stream(method, url, content=body, headers=headers) as response:
            if response.headers.get("content-encoding", "identity") not in ("identity", ""):
                raise FaultError("broken", "the answer is packed, although that was not asked for")
            yield response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()


def place(url: str) -> str:
    """Host and port of a URL, as people are told of a server."""
    return urlsplit(url).netloc


def is_url(text: str) -> bool:
    """Whether an HTTP client can make anything of it as the URL of a server."""
    try:
        parts = urlsplit(text)
        httpx2.URL(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx2.InvalidURL):
        return False


def is_here(url: str) -> bool:
    """Whether the URL's host is this machine by its name or address, however that is written."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        try:
            address = IPv4Address(socket.inet_aton(host))  # as in 127.1
        except (OSError, ValueError):
            return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = mapped or address
    return address.is_loopback or address.is_unspecified


async def _whole(response: httpx2.Response) -> Reply:
    body = bytearray()
    async for block in response.aiter_raw():
        body += block
        if len(body) > MOST_BYTES:
            raise FaultError("broken", f"the answer is longer than {MOST_BYTES >> 20} MiB")
    return Reply(response.status_code, dict(response.headers), bytes(body))


async def _events(response: httpx2.Response) -> AsyncIterator[str]:
    """The data of each event: its lines, as https://html.spec.whatwg.org/#event-stream-interpretation joins them.

    The last event need not be ended.
    """
    data: list[bytes] = []
    mark = BOM_UTF8  # that the first line may begin with
    async for marked in _lines(response):
        line, mark = marked.removeprefix(mark), b""
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line and data:
            yield b"\n".join(data).decode("utf-8", "replace")
            data = []
    if data:
        yield b"\n".join(data).decode("utf-8", "replace")


async def _lines(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The lines of a stream that ends with its last line, or without."""
    rest, total = bytearray(), 0
    async for block in response.aiter_raw():
        total += len(block)
        if total > MOST_BYTES or len(rest) > MOST_LINE:
            raise FaultError("broken", "the stream does not end")
        rest += block
        *lines, last = rest.split(b"\n")
        rest = bytearray(last)
        for line in lines:
            yield bytes(line).rstrip(b"\r")
    yield bytes(rest)


def _reason(error: Exception) -> str:
    """A few words about why there is no connection."""
    words = " ".join(str(error).split())
    if "ertificate" in words:
        return "its certificate is not trusted"
    if "Name or service" in words or "getaddrinfo" in words or "nodename" in words:
        return "there is no such host"
    return "it took too long" if isinstance(error, httpx2.ConnectTimeout) else "nobody answers there"
