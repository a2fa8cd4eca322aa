"""What the body of a chat request may hold, and what each field is taken for.

A field that would change the answer, and that the model cannot follow, is refused; one that changes nothing is let
pass. Both are written down here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from phi4mm_cli.serving.refusal import Refusal

# Of no effect on the answer.
HARMLESS = frozenset(
    [
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "priority",
        "include_reasoning",
    ]
)
# Of effect, but for these values, which ask for what is done anyway.
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "stop": ([], ""),
    "parallel_tool_calls": (True,),
    "min_p": (0,),
    "top_k": (0, -1),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "echo": (False,),
}
# Of a message: what other servers write into their answers, and clients send back.
OF_ANSWERS = frozenset(("name", "refusal", "annotations", "reasoning", "reasoning_content", "audio", "function_call"))


T = TypeVar("T", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class Text(_Strict):
    """Words."""

    type: Literal["text"]
    text: str


class AudioData(_Strict):
    """A recording in base64. Its format is told by its content, not by the label."""

    data: str
    format: str | None = None


class InputAudio(_Strict):
    """A recording, as OpenAI has it."""

    type: Literal["input_audio"]
    input_audio: AudioData


class Url(_Strict):
    """Where media are: a data: URL."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None  # of pictures: low shows them in fewer crops


class AudioUrl(_Strict):
    """A recording, as vLLM has it."""

    type: Literal["audio_url"]
    audio_url: Url


class ImageUrl(_Strict):
    """A picture."""

    type: Literal["image_url"]
    image_url: Url


Content = Annotated[Text | InputAudio | AudioUrl | ImageUrl, Field(discriminator="type")]


class Called(_Strict):
    """The function of a call."""

    name: str
    arguments: str  # JSON text of an object


class Call(_Strict):
    """A call that the model made earlier."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: Called


class Turn(_Strict):
    """A message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: list[Content] = []
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    token_ids: list[int] | None = None  # of an answer: its letters are none of a call's markers but where these are

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, content: Any) -> Any:
        if content is None:
            return []
        return [{"type": "text", "text": content}] if isinstance(content, str) else content


class StreamOptions(_Strict):
    """What is sent beside the pieces of an answer."""

    include_usage: bool | None = None


class Chat(_Strict):
    """A chat request."""

    model: str | None = None
    messages: list[Turn] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    num_beams: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    skip_special_tokens: bool | None = None  # False leaves the calls of tools in the text, as the model wrote them
    return_token_ids: bool | None = None
    placeholders: bool | None = None  # False: a text that names media (<|audio_1|>) is text


class Tokenize(_Strict):
    """A text to be counted."""

    prompt: str


def read_chat(content: bytes) -> Chat:
    """The chat request in `content`. Raises Refusal."""
    chat = _read(Chat, content)
    for name, value in (chat.model_extra or {}).items():
        if value is not None and name not in HARMLESS and value not in DEFAULTS.get(name, ()):
            raise _not_followed(name, name in DEFAULTS)
    for i, turn in enumerate(chat.messages):
        for name, value in (turn.model_extra or {}).items():
            if value is not None and name not in OF_ANSWERS:
                raise _not_followed(f"messages.{i}.{name}", False)
    return chat


def read_tokenize(content: bytes) -> Tokenize:
    """The text in `content`. Raises Refusal."""
    return _read(Tokenize, content)


def _read(kind: type[T], content: bytes) -> T:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise _refusal(error) from None


def _not_followed(name: str, known: bool) -> Refusal:
    message = f"'{name}' would change the answer, and is not supported" + (" with this value" if known else "")
    return Refusal(400, f"{message}. Leave it out", name, "unsupported_parameter")


def _refusal(error: ValidationError) -> Refusal:
    """What is wrong first, without the values, which are nobody's business in a log."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(
        str(part) for part in problem["loc"] if part not in ("text", "input_audio", "audio_url", "image_url")
    )
    return Refusal(400, f"{where}: {problem['msg']}" if where else problem["msg"], where or None)
