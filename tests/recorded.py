"""How vLLM 0.32 was seen to answer, recorded: its lists, bodies, events and errors. No vLLM runs here.

A real server was run once with a small checkpoint in the released layout; what it sent on the wire is played back.
"""

from __future__ import annotations

from typing import Any

from web import Answer, Heard

BASE = "phi4mm-base"


def models(length: int = 4096, adapters: tuple[str, ...] = ("speech", "vision")) -> dict[str, Any]:
    """GET /v1/models of a server that was started as the model card starts it."""
    base = {"id": BASE, "object": "model", "created": 1, "owned_by": "vllm", "root": "m/phi4mm", "parent": None}
    listed = [base | {"max_model_len": length, "permission": []}]
    for name in adapters:
        root = f"m/phi4mm/{name}-lora"
        listed.append(base | {"id": name, "root": root, "parent": BASE, "max_model_len": None, "permission": []})
    return {"object": "list", "data": listed}


CALL_TOKEN = 200025  # <|tool_call|>


def completion(text: str, tokens: int, prompt: int = 20, finish: str = "stop") -> dict[str, Any]:
    """The answer to a chat request."""
    message = {"role": "assistant", "content": text, "refusal": None, "tool_calls": [], "reasoning": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
    ids = [100 + number for number in range(tokens - 1)] + [200020 if finish == "stop" else 99]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": BASE,
        "choices": [choice | {"stop_reason": None, "token_ids": ids}],
        "usage": usage | {"prompt_tokens_details": None},
        "service_tier": None,
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }


def chunks(*pieces: str, prompt: int = 20, finish: str = "stop") -> list[dict[str, Any]]:
    """The events of a streamed answer, with the usage that was asked for in one of its own."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": BASE}
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    told = [first] + [
        {"index": 0, "delta": {"content": piece}, "finish_reason": None, "token_ids": [100 + number]}
        for number, piece in enumerate(pieces)
    ]
    last = {"index": 0, "delta": {"content": ""}, "finish_reason": finish, "stop_reason": None, "token_ids": [200020]}
    told.append(last if finish == "stop" else last | {"token_ids": None})
    count = len(pieces) + (finish == "stop")
    usage = {"prompt_tokens": prompt, "total_tokens": prompt + count, "completion_tokens": count}
    return [head | {"choices": [choice]} for choice in told] + [head | {"choices": [], "usage": usage}]


def error(message: str, kind: str = "BadRequestError", param: str | None = None, code: int = 400) -> dict[str, Any]:
    """The body of an error."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


# What was asked for, the status, and the body.
ERRORS: dict[str, tuple[int, Any]] = {
    "unknown model": (
        404,
        error("The model `nope` does not exist. Valid aliases: phi4mm-base.", "NotFoundError", "model", 404),
    ),
    "long text": (
        400,
        error(
            "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input "
            "tokens. Please reduce the length of the input prompt.",
            param="input_tokens",
        ),
    ),
    "long media": (400, error("Input length (22304) exceeds model's maximum context length (8192).")),
    "budget": (400, error("max_tokens=100000 cannot be greater than max_model_len=4096. Please request fewer.")),
    "many clips": (400, error("At most 3 audio(s) may be provided in one prompt. (parameter=audio)")),
    "no sound": (400, error("Invalid or corrupted audio data. Ensure the input is a valid audio or video file")),
    "processor": (400, error("Failed to apply Phi4MMProcessor on data={'text': 'secret words', 'audio': [0.1, 0.2]}")),
    "ten minutes": (
        400,
        error("Audio exceeds maximum allowed duration of 600s. Set VLLM_MAX_AUDIO_DECODE_DURATION_S to raise it"),
    ),
    "native layout": (400, error("m/native is not a multimodal model")),
    "key": (401, {"error": "Unauthorized"}),
    "busy": (
        503,
        error("The engine is currently busy and cannot accept new requests", "Service Unavailable", None, 503),
    ),
    "route": (404, {"detail": "Not Found"}),
}


def answering(
    text: str = "hello there", length: int = 4096, adapters: tuple[str, ...] = ("speech", "vision")
) -> Answer:
    """A server that has the model, and always gives the same answer."""

    def answer(heard: Heard) -> None:
        if heard.path == "/v1/models":
            heard.reply(models(length, adapters))
        elif heard.path == "/tokenize":
            heard.reply({"count": len(heard.body["prompt"].split()), "max_model_len": length, "tokens": []})
        elif heard.path != "/v1/chat/completions":
            heard.reply({"detail": "Not Found"}, 404)
        elif heard.body.get("stream"):
            words = text.split()
            heard.events(*chunks(*(word if not n else f" {word}" for n, word in enumerate(words))))
        else:
            reply = completion(text, len(text.split()) + 1)
            if text.startswith("<|tool_call|>"):
                reply["choices"][0]["token_ids"][0] = CALL_TOKEN
            heard.reply(reply)

    return answer
