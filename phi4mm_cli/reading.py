"""Reads one page of a document: asks for its bands, again where an answer does not end, and joins what they hold."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from phi4mm_cli import cancel, paging, tables, trust
from phi4mm_cli.errors import InputError, Phi4Error, RequestError
from phi4mm_cli.flow import Flow
from phi4mm_cli.model.grid import MOST_CROPS
from phi4mm_cli.options import SamplingOptions
from phi4mm_cli.outputs import Page, Table, Warning
from phi4mm_cli.paging import Detail, View
from phi4mm_cli.schema import Message, Request, Result

if TYPE_CHECKING:
    from phi4mm_cli.media.document import Document

PROMPT = "Convert the document in this image to Markdown."  # our own: the model card has none for documents

# The token budget of an answer: what is written takes fewer tokens than the picture that it can be read from.
BASE_TOKENS = 256
TEMPERATURES = (0.2, 0.5, 0.8)  # at which a page is decoded again; each time costs as much as the first
MOST_UNREADABLE = 0.05  # of the characters of a text that a page carries: more is a font without its alphabet

_FENCED = re.compile(r"\s*```(?:markdown|md|html)[ \t]*\n(.*?)\n?(?:```)?\s*", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^[ \t]*```", re.MULTILINE)


class TextLayer(StrEnum):
    """What is done with the text that a page of a PDF carries."""

    IGNORE = "ignore"
    PREFER = "prefer"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class Reading:
    """How pages are read."""

    detail: Detail = Detail.AUTO
    text_layer: TextLayer = TextLayer.IGNORE
    most_crops: int = MOST_CROPS
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


@dataclass(frozen=True, slots=True)
class Read:
    """A page, and why not to trust it."""

    page: Page
    warnings: tuple[Warning, ...] = ()
    failed: Phi4Error | None = None  # why there is nothing of it


def read(document: Document, number: int, how: Reading) -> Flow[Read]:
    """The page with this number. What is wrong with it, or what the engine cannot do with it, costs this page alone."""
    cancel.check()
    try:
        if how.text_layer is not TextLayer.IGNORE:
            carried = document.text(number)
            if is_legible(carried) and (how.text_layer is TextLayer.ONLY or not document.shows_more(number)):
                return Read(Page(number, carried, _tables(carried), "text_layer", 0))
            if how.text_layer is TextLayer.ONLY:
                message, action = "the page carries no text", "left empty; --text-layer prefer has the model read it"
                return Read(Page(number, "", (), "text_layer", 0), (Warning("no_text", message, action, page=number),))
        views = paging.views(document.sheet(number), how.detail, how.most_crops)
        if document.is_blank(number):
            return Read(_nothing(number), (Warning("blank_page", "nothing is on the page", "left empty", page=number),))
    except InputError as error:
        return Read(_nothing(number), (Warning("unreadable_page", error.message, "left out", page=number),), error)
    requests = [_request(document, number, view, how) for view in views]
    try:
        answers = yield from _answers(requests, how.sampling)
    except RequestError as error:
        return Read(_nothing(number), (Warning("failed_page", error.message, "left out", page=number),), error)
    warnings = [*_answer_warnings(number, answers)]
    text, apart = paging.joined([answer.text for answer in answers], _overlap(views))
    if apart:
        message = "bands of the page have too little in common where they overlap; some lines may be there twice"
        warnings.append(Warning("unjoined_bands", message, "kept them as they are", page=number))
    if not text and all(answer.ended for answer in answers):
        warnings.append(Warning("empty_answer", "the model read nothing on the page", "left empty", page=number))
    tokens = sum(view.tokens for view in views)
    return Read(Page(number, text, _tables(text), "model", tokens, len(views)), tuple(warnings))


def _nothing(number: int) -> Page:
    return Page(number, "", (), "model", 0)


def _tables(text: str) -> tuple[Table, ...]:
    return tuple(Table(rows) for rows in tables.tables(text))


def is_legible(text: str) -> bool:
    """Whether a text that a page carries is one: fonts may lack what says which letters their shapes are."""
    shown = [letter for letter in text if not letter.isspace()]
    bad = sum(letter == "\ufffd" or unicodedata.category(letter) in ("Cc", "Co", "Cn") for letter in shown)
    return bool(shown) and bad <= MOST_UNREADABLE * len(shown)


def _request(document: Document, number: int, view: View, how: Reading) -> Request:
    message = Message("user", (document.picture(number, view.size, view.band), PROMPT))
    return Request((message,), how.sampling.sampling(BASE_TOKENS + view.tokens))


def _overlap(views: Sequence[View]) -> float:
    """The share of a band that its neighbour shows too."""
    return paging.OVERLAP / (views[0].band[1] - views[0].band[0]) if views[0].band else 0.0


# ------------------------------------------------------------------------------------------------------ answers


@dataclass(frozen=True, slots=True)
class _Answer:
    text: str
    ended: bool  # by the model itself
    looped: bool = False  # and was cut
    again: bool = False  # it was asked for more than once
    temperature: float | None = None  # at which it ended after all


def _answers(requests: Sequence[Request], sampling: SamplingOptions) -> Flow[list[_Answer]]:
    """An answer to each request: the first one that the model ends; where it ends none, what is usable of the first."""
    results = yield requests
    found = [_usable(result) for result in results]
    for temperature in TEMPERATURES:
        open_ones = [
            number
            for number, answer in enumerate(found)
            if not answer.ended and (answer.looped or sampling.max_new_tokens is None)
        ]
        if temperature <= sampling.temperature or not open_ones:
            continue
        warmer = [
            replace(requests[n], sampling=replace(requests[n].sampling, temperature=temperature, num_beams=1))
            for n in open_ones
        ]
        again = yield warmer
        for number, result in zip(open_ones, again, strict=True):
            usable = replace(_usable(result), temperature=temperature)
            found[number] = replace(usable if usable.ended else found[number], again=True)
    return found


def unfenced(text: str) -> str:
    """Markdown without the fence that the model may have put around it all."""
    fenced = _FENCED.fullmatch(text)
    return fenced[1] if fenced and not _FENCE.search(fenced[1]) else text


def _usable(result: Result) -> _Answer:
    """What of an answer is text. The fence that the model may put around it all is none."""
    text = unfenced(result.text).strip("\n")
    if result.finish == "stop":
        return _Answer(text, ended=True)
    cut = trust.without_loop(text)
    return _Answer(cut.rstrip(), ended=False, looped=cut != text)


def _answer_warnings(number: int, answers: Sequence[_Answer]) -> Iterator[Warning]:
    for answer in answers:
        tried = "decoded again to no avail; " if answer.again else ""
        if answer.looped:
            message = "the text repeats itself to no end"
            yield Warning("looping", message, f"{tried}cut after its first telling", page=number)
        elif not answer.ended:
            message = "the text was cut off by its token budget"
            yield Warning("token_limit", message, f"{tried}kept as it is", page=number)
        elif answer.temperature is not None:
            message = "the answer did not end"
            action = f"decoded again at temperature {answer.temperature:g}, which healed it"
            yield Warning("token_limit", message, action, page=number, healed=True)
