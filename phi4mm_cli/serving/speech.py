"""Transcribes and translates recordings of any length, by the flows of the commands, in the form of OpenAI's API."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast, get_args

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from phi4mm_cli import hearing, languages, media
from phi4mm_cli.captions.presets import PresetName
from phi4mm_cli.driver import run
from phi4mm_cli.editions import Translations
from phi4mm_cli.errors import InputError, UsageError
from phi4mm_cli.flow import Flow
from phi4mm_cli.flows import transcribe, translate
from phi4mm_cli.hearing import Listening
from phi4mm_cli.jobs import Job
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Body, Document, Timings, Transcript, Translation
from phi4mm_cli.schema import Source, to_json
from phi4mm_cli.serving.asked import require_in_range
from phi4mm_cli.serving.gate import note
from phi4mm_cli.serving.names import Names
from phi4mm_cli.serving.refusal import Refusal
from phi4mm_cli.serving.seat import Seat
from phi4mm_cli.serving.shared import SharedEngine
from phi4mm_cli.serving.uploads import Uploads
from phi4mm_cli.task import Editions, OneEach

Format = Literal["json", "text", "verbose_json", "srt", "vtt"]
ENGLISH = "en"  # what OpenAI's API translates into

GRANULARITIES = "timestamp_granularities[]"
# Of no effect on the result, or with these values none.
_HARMLESS: dict[str, tuple[str, ...]] = {"stream": ("false", "0"), "chunking_strategy": ("auto",), "user": ()}
_FIELDS = ("file", "model", "language", "prompt", "hotwords", "temperature", "response_format", GRANULARITIES)
_TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked for about a recording."""

    file: UploadFile
    format: Format
    language: str | None  # code of the one spoken
    prompt: str
    terms: tuple[str, ...]
    sampling: SamplingOptions
    granularities: frozenset[str]


class Recordings:
    """Where recordings are taken."""

    def __init__(self, shared: SharedEngine, uploads: Uploads, names: Names) -> None:
        self._shared, self._uploads, self._names = shared, uploads, names

    async def transcribe(self, http: HttpRequest) -> Response:
        """What is said in a recording. Raises Refusal, Phi4Error."""

        def start(form: Form, how: Listening, source: Source) -> Flow[Body]:
            options = transcribe.Options(form.language, form.terms, form.prompt, how)
            return transcribe.flow(source, options)

        return await self._answer(http, start, OneEach(None))

    async def translate(self, http: HttpRequest) -> Response:
        """The same in English. Raises Refusal, Phi4Error."""

        def start(form: Form, how: Listening, source: Source) -> Flow[Body]:
            options = translate.Options(ENGLISH, self._shared.engine.count_tokens, form.language, listening=how)
            return translate.of_speech(source, options)

        return await self._answer(http, start, Translations(ENGLISH, None, False, False))

    async def _answer(
        self, http: HttpRequest, start: Callable[[Form, Listening, Source], Flow[Body]], editions: Editions
    ) -> Response:
        form = _read(await http.form(max_files=1, max_fields=32), self._names)
        seat = Seat(self._shared)
        try:
            work = partial(self._work, seat, form, start)
            # The gate bounds how many there are; the thread ends by itself once it learns that nobody waits.
            document, path = await to_thread.run_sync(work, abandon_on_cancel=True, limiter=CapacityLimiter(1))
        except asyncio.CancelledError:
            seat.withdraw()
            raise
        except InputError as error:
            raise Refusal(400, f"file: {error}", "file", "invalid_media") from None
        usage = document.usage
        note(http, f"{usage.calls} calls, {usage.prompt_tokens} + {usage.completion_tokens} tokens")
        return _written(document, path, form, editions)

    def _work(
        self, seat: Seat, form: Form, start: Callable[[Form, Listening, Source], Flow[Body]]
    ) -> tuple[Document, Path]:
        """Run the flow, on a thread of its own."""
        how = Listening(longest_chunk=seat.profile.max_chunk_seconds, sampling=form.sampling)
        with ExitStack() as stack:
            stack.enter_context(form.file.file)
            path = stack.enter_context(self._uploads.kept(form.file.file))
            source = media.source(path)
            hearing.require_language(form.language, seat.profile)
            stack.enter_context(seat)
            [outcome] = run([Job("recording", lambda: start(form, how, source))], seat)
            if outcome.error is not None:
                raise outcome.error
            assert outcome.value is not None
            times = Timings(outcome.seconds)
            return Document("recording", seat.info, {}, times, outcome.usage, outcome.value), path


# ------------------------------------------------------------------------------------------------- the request


def _read(form: FormData, names: Names) -> Form:
    """What a form asks for. Raises Refusal."""
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refusal(400, "file: a recording is missing: send a form (multipart/form-data) with one", "file")
    try:
        return _checked(form, file, names)
    except BaseException:
        file.file.close()
        raise


def _checked(form: FormData, file: UploadFile, names: Names) -> Form:
    told = {name: str(value) for name, value in form.items() if name != "file" and value != ""}
    for name, value in told.items():
        if name not in _FIELDS and (name not in _HARMLESS or (_HARMLESS[name] and value not in _HARMLESS[name])):
            raise Refusal(400, f"'{name}' is not supported. Leave it out", name, "unsupported_parameter")
    names.require(told.get("model"))
    format = told.get("response_format", "json")
    if format not in get_args(Format):
        raise Refusal(400, f"response_format is one of {', '.join(get_args(Format))}", "response_format")
    granularities = frozenset(str(value) for value in form.getlist(GRANULARITIES))
    if not granularities <= {"segment", "word"} or (granularities and format != "verbose_json"):
        raise Refusal(400, f"{GRANULARITIES} is segment or word, for verbose_json alone", GRANULARITIES)
    terms = tuple(term.strip() for term in told.get("hotwords", "").split(",") if term.strip())
    return Form(
        file=file,
        format=cast(Format, format),
        language=_language(told.get("language", languages.AUTO)),
        prompt=told.get("prompt", "").strip(),
        terms=terms,
        sampling=SamplingOptions(temperature=_temperature(told.get("temperature", "0"))),
        granularities=granularities or frozenset(("segment",)),
    )


def _language(asked: str) -> str | None:
    try:
        return languages.audio_code(asked)
    except UsageError as error:
        raise Refusal(400, f"language: {error}", "language") from None


def _temperature(asked: str) -> float:
    try:
        value = float(asked)
    except ValueError:
        raise Refusal(400, "temperature is a number", "temperature") from None
    require_in_range("temperature", value)
    return value


# -------------------------------------------------------------------------------------------------- the answer


def _written(document: Document, path: Path, form: Form, editions: Editions) -> Response:
    body = document.body
    assert isinstance(body, (Transcript, Translation))
    seconds = {"type": "duration", "seconds": math.ceil(body.duration or 0.0)}
    if form.format == "json":
        return JSONResponse({"text": body.text, "usage": seconds})
    if form.format == "verbose_json":
        return JSONResponse(_verbose(body, form.granularities) | {"usage": seconds})
    if form.format == "text":
        return PlainTextResponse(body.text + "\n")
    [edition] = editions.of(path, document, (form.format,), PresetName.NETFLIX, True)
    file = io.StringIO()
    edition.write(document, file)
    return PlainTextResponse(file.getvalue(), media_type=_TYPES[form.format])


def _verbose(body: Transcript | Translation, granularities: frozenset[str]) -> dict[str, Any]:
    """OpenAI's `verbose_json`, of whisper's own numbers without those that this model has none of; and warnings."""
    task = "transcribe" if isinstance(body, Transcript) else "translate"
    told: dict[str, Any] = {"task": task, "language": body.language, "duration": body.duration, "text": body.text}
    if "segment" in granularities:
        told["segments"] = [
            {"id": part.id, "start": part.start, "end": part.end, "text": part.text} for part in body.segments
        ]
    if "word" in granularities and isinstance(body, Transcript):
        told["words"] = [word for segment in body.segments for word in segment.words or ()]
    return cast("dict[str, Any]", to_json(told | {"coverage": body.coverage, "warnings": body.warnings}))
