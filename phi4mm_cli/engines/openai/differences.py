"""Where a server computes something else than the model's own implementation, as far as that can be known from here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from phi4mm_cli.engines.openai.wire import Family, Medium, Served, answered, ignored_settings, neutral
from phi4mm_cli.schema import Remark, Reply, Request, Result

SHORT_CONTEXT = 4096  # tokens, up to which the released model has rope factors of their own


def remarks(request: Request, media: Sequence[Medium], served: Served, result: Result) -> tuple[Remark, ...]:
    """What is to be known about the answer of a server, once for each kind of difference."""
    found = [
        Remark("ignored_setting", f"the server does not know {name}, which was set", "--engine local follows it")
        for name in ignored_settings(request, served.family)
    ]
    if served.family is not Family.PHI4MM:
        found += _changed_text(request, served.family)
    if served.family is Family.VLLM:
        found += _of_vllm(request, media, served, result)
    return tuple(found)


def _changed_text(request: Request, family: Family) -> Iterator[Remark]:
    parts = [part for message in request.messages for part in message.parts]
    said = any(neutral(part) != part for part in parts if isinstance(part, str))
    if said or any(answered(part, family) != part.text for part in parts if isinstance(part, Reply)):
        message = "a text has names of the model's control tokens in it, which were changed for the server"
        yield Remark("other_computation", message, "--engine local reads them as they are")


def _of_vllm(request: Request, media: Sequence[Medium], served: Served, result: Result) -> Iterator[Remark]:
    """What vLLM 0.32 was seen to do."""
    if served.context is not None and served.context > SHORT_CONTEXT and result.prompt_tokens <= SHORT_CONTEXT:
        message = f"vLLM reads short prompts with the factors of long ones where its limit is above {SHORT_CONTEXT}"
        advice = f"serve the model with --max-model-len {SHORT_CONTEXT} for requests that fit into it"
        yield Remark("other_computation", message, advice)
    if request.pictures and request.clips:
        message = "vLLM projects the sound beside a picture as if there were none"
        yield Remark("other_computation", message, "--engine local projects it as the model was trained")
    if any(medium.padded for medium in media):
        message = "vLLM lets the padding beside a picture be seen"
        yield Remark("other_computation", message, "pictures with sides of multiples of 448 pixels have none")
    if any(medium.narrow for medium in media):
        message = "vLLM hears telephone sound (8 kHz) as if it were 16 kHz sound without its upper half"
        yield Remark("other_computation", message, "--engine local has the features that the model was trained with")
