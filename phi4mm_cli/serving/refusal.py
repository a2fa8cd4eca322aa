"""Why a request gets no answer: a status and an error object, as OpenAI's API has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from phi4mm_cli.errors import InputError, Phi4Error, RequestError, TooLongError, UsageError

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


_OF_STATUS = {
    404: "there is nothing at this path; /v1/models, /v1/chat/completions and /v1/audio/transcriptions are",
    405: "this path does not take that method",
}


class Refusal(Exception):  # noqa: N818 - what is answered, and not always an error
    """A request that is not answered; `param` is the field that it is about, `code` a name for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.headers = status, message, param, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """What the client is sent."""
        return JSONResponse(self.body, self.status, self.headers)


def of(error: Exception) -> Refusal:
    """`error` as a client is told of it: what it cannot help itself is told without details."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TooLongError):
        return Refusal(400, str(error), "messages", "context_length_exceeded")
    if isinstance(error, (InputError, UsageError, RequestError)):
        return Refusal(400, str(error))
    if isinstance(error, Phi4Error):
        return Refusal(503, str(error))
    if isinstance(error, HTTPException):
        message = _OF_STATUS.get(error.status_code, error.detail)
        return Refusal(error.status_code, message, headers=error.headers)
    return Refusal(500, "an unexpected error, which the server's own messages tell of")
