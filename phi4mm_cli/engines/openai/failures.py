"""What went wrong with a server, in phi4mm's words: which errors there are, what to do next, and what is worth a retry.

Of a server's own words only a short line is ever repeated, without the key and without what was sent to it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from phi4mm_cli.engines.openai.transport import FaultError, Reply
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError

MOST_WORDS = 160  # characters of a server's own

Patience = Literal[
    "none",  # the next answer would be the same
    "bounded",  # it may have been an accident
    "busy",  # there will be an answer when others have theirs
    "down",  # the server is gone, and it is not the request's fault
]

_CONTEXT = ("context length", "context window", "max_model_len", "maximum context", "tokens long")
_NO_MEDIA = ("not a multimodal model", "support image", "support audio", "unsupported content", "unknown part type")
_RUN = re.compile(r"[A-Za-z0-9+/=_\-]{60,}")  # what may be base64
_STATUS = re.compile(r"[45][0-9]{2}")  # of an error
_START_AGAIN = "Start it again and repeat the command"


class SetbackError(Exception):
    """An exchange failed: `error` is what to tell where no retry helps."""

    def __init__(self, error: Phi4Error, patience: Patience, to_wait: float | None = None, words: str = "") -> None:
        super().__init__()
        self.error = error
        self.patience: Patience = patience
        self.to_wait = to_wait  # seconds that the server asks for
        self.words = words  # the server's own

    @property
    def too_long(self) -> bool:
        """Whether the prompt, or the answer that was asked for with it, is longer than the context."""
        return self.patience == "none" and _is_of_length(self.words)


@dataclass(frozen=True, slots=True)
class Speaker:
    """A server, as errors tell of it, and the key that they must not tell."""

    place: str
    key: str | None

    @property
    def name(self) -> str:
        """What it is called in a message."""
        return f"the server at {self.place}"

    def fault(self, fault: FaultError) -> SetbackError:
        """An exchange that came to nothing."""
        if fault.kind == "unreachable":
            advice = "Check --url, and that the server runs; one that loads a model may take minutes to answer"
            return SetbackError(MissingError(f"{self.name} cannot be reached: {fault.detail}", advice), "down")
        if fault.kind == "cut":
            return SetbackError(RequestError(f"{self.name} broke off: {fault.detail}", _START_AGAIN), "bounded")
        if fault.kind == "slow":
            advice = "Give it more time with --timeout, or ask it less at once with --concurrency"
            return SetbackError(RequestError(f"{self.name} is too slow: {fault.detail}", advice), "bounded")
        return self.malformed(fault.detail)

    def malformed(self, detail: str) -> SetbackError:
        """An answer that is none."""
        message = f"{self.name} does not answer as the protocol has it: {detail}"
        return SetbackError(RequestError(message, "Check --url: it ends with /v1 as a rule"), "bounded")

    def refused(self, reply: Reply) -> SetbackError:
        """An answer with an error's status."""
        status, words = reply.status, self.words(reply)
        if status in (301, 302, 303, 307, 308):
            message = f"{self.name} sends elsewhere, where phi4mm does not follow"
            return SetbackError(MissingError(message, "Give the URL itself that it moved to, if you trust it"), "none")
        if status in (401, 403):
            asks = "refuses the key" if self.key else "asks for a key"
            return SetbackError(MissingError(f"{self.name} {asks}", "Set PHI4MM_API_KEY to the key it wants"), "none")
        said = f"{self.name} answers with status {status}" + (f": {words}" if words else "")
        if status in (408, 425, 429, 502, 503, 504):
            error = RequestError(said, "It has too much to do; try later, or with a smaller --concurrency")
            return SetbackError(error, "busy", reply.to_wait)
        if status >= 500:
            return SetbackError(RequestError(said, "Its own log says more"), "bounded")
        return SetbackError(self._request_error(status, words, said), "none", words=words)

    def failed(self, sent: dict[str, Any]) -> SetbackError:
        """An error in the place of an answer: as if its code, where it is one of HTTP's, were the status."""
        error, reply = sent.get("error") or sent, Reply(200, {}, json.dumps(sent).encode())
        code = str(error.get("code")) if isinstance(error, dict) else ""
        if _STATUS.fullmatch(code):
            return self.refused(replace(reply, status=int(code)))
        words = self.words(reply)
        said = f"{self.name} answers with an error" + (f": {words}" if words else "")
        return SetbackError(RequestError(said, "Its own log says more"), "bounded")

    def _request_error(self, status: int, words: str, said: str) -> Phi4Error:
        low = words.lower()
        if _is_of_length(words):
            advice = "Use a shorter clip or text, or fewer or smaller pictures, or serve the model with more context"
            return RequestError(f"the prompt is too long for {self.name}: {words}", advice)
        if "maximum allowed duration" in low:
            advice = "Use shorter ones (--part-minutes 9), or raise VLLM_MAX_AUDIO_DECODE_DURATION_S there"
            return RequestError(f"the clip is longer than {self.name} takes: {words}", advice)
        if "may be provided in one prompt" in low:
            advice = "Ask with fewer, or start it with a higher --limit-mm-per-prompt"
            return RequestError(f"that is too much at once for {self.name}: {words}", advice)
        if any(sign in low for sign in _NO_MEDIA):
            return self.no_media("sound or pictures", words)
        if status == 404 and re.search(r"\bmodel\b", low):  # a path that is told of may have /models in it
            advice = "Name what it serves with --model and --served; its /v1/models lists it"
            return MissingError(f"{self.name} does not serve that model: {words}", advice)
        if status in (404, 405):
            return MissingError(f"{self.name} knows no such address", "Check --url: it ends with /v1 as a rule")
        if status == 413:
            return RequestError(f"{self.name} takes no request so large", "Use shorter clips")
        return RequestError(said, "Its own log may say more")

    def no_media(self, media: str, words: str) -> MissingError:
        """It answers text and refuses what else the model takes."""
        message = f"{self.name} takes no {media}" + (f": {words}" if words else "")
        advice = "vLLM takes them with the released layout of the model and --trust-remote-code, not with transformers'"
        return MissingError(message, advice)

    def words(self, reply: Reply) -> str:
        """A short line of what the server says: from an object, a string, a `detail`, or plain text."""
        text = reply.body[: 1 << 16].decode("utf-8", "replace")
        try:
            said = _said(json.loads(text))
        except (ValueError, RecursionError):
            said = "a web page" if text.lstrip()[:1] == "<" else text
        return self.clean(said)

    def clean(self, said: str) -> str:
        """`said` as a short line, without the key and long runs of data."""
        if self.key:
            said = said.replace(self.key, "…")
        said = _RUN.sub("…", said.partition("data={")[0])
        line = " ".join("".join(c if c.isprintable() else " " for c in said).split()).rstrip(". ")
        return line if len(line) <= MOST_WORDS else line[: MOST_WORDS - 1] + "…"


def is_error(sent: dict[str, Any]) -> bool:
    """Whether an object is one that tells of an error, in OpenAI's way or in that of SGLang."""
    return bool(sent.get("error")) or sent.get("object") == "error"


def _is_of_length(words: str) -> bool:
    return any(sign in words.lower() for sign in _CONTEXT)


def _said(value: object) -> str:
    if isinstance(value, dict):
        for name in ("error", "message", "detail", "msg"):
            if name in value:
                return _said(value[name])
        return ""
    if isinstance(value, list):
        return _said(value[0]) if value else ""
    return value if isinstance(value, str) else ""
