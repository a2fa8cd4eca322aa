"""Chat completions of `phi4mm serve`, by the official client and by plain HTTP."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
import soundfile
from PIL import Image
from serving import Reply, Server, call, client

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines import open_engine
from phi4mm_cli.flows.transcribe import PROMPT
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Clip, Message, Request, Result, Sampling

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALLED = '<|tool_call|>[{"name": "weather", "arguments": {"city": "Paris"}}]<|/tool_call|>'


def recording(seconds: tuple[float, float], format: str = "WAV") -> bytes:
    samples, rate = soundfile.read(SAMPLES / "meeting.flac", dtype="int16")
    file = io.BytesIO()
    soundfile.write(file, samples[round(seconds[0] * rate) : round(seconds[1] * rate)], rate, format=format)
    return file.getvalue()


def spoken(content: bytes, format: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(content).decode(), "format": format}}


def asked(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [*parts]}]


def words(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


# -------------------------------------------------------------------------------------------- with the demo


def test_models_are_listed_as_vllm_lists_them(demo_server: Server) -> None:
    models = client(demo_server).models.list().data
    assert [(model.id, model.model_dump()["parent"]) for model in models] == [
        ("phi4mm", None),
        *((name, "phi4mm") for name in resolve("demo").profile.adapters),
    ]
    assert models[0].model_dump()["max_model_len"] == 131072


def test_speech_is_answered_as_by_the_local_engine(demo_server: Server, tmp_path: Any) -> None:
    content = recording((0, 6))
    (tmp_path / "clip.wav").write_bytes(content)
    clip = Clip(audio.source(tmp_path / "clip.wav"), 0.0, 6.0)
    with open_engine("local", "demo", None, "cpu", "auto", None) as engine:
        request = Request((Message("user", (clip, PROMPT)),), Sampling(60))
        engine.submit(request)
        [(_, local)] = engine.poll()
    assert isinstance(local, Result)
    reply = client(demo_server).chat.completions.create(
        model="speech", messages=asked(spoken(content), words(PROMPT)), max_tokens=60
    )
    assert local.text
    assert reply.choices[0].message.content == local.text
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (local.prompt_tokens, len(local.tokens))

    card = asked(words(f"<|audio_1|>{PROMPT}"), spoken(recording((0, 6), "FLAC"), "flac"))
    pieces = [*client(demo_server).chat.completions.create(model="phi4mm", messages=card, max_tokens=60, stream=True)]
    assert len(pieces) > 5
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == local.text
    assert pieces[-1].choices[0].finish_reason == "stop"


# -------------------------------------------------------------------------------------- with the echo engine


def said(server: Server, messages: Any, **settings: Any) -> str:
    """The words of the answer."""
    reply = client(server).chat.completions.create(model="phi4mm", messages=messages, **settings)
    return " ".join((reply.choices[0].message.content or "").split())


def test_parts_are_in_the_order_given_or_where_the_text_names_them(echo_server: Server) -> None:
    one, two = spoken(recording((0, 1))), spoken(recording((0, 2)))
    assert said(echo_server, asked(words("a"), words("b"), one, words("c"))) == "a b [0.000-1.000] c"
    assert said(echo_server, asked(one, two, words("a <|audio_2|> b"))) == "[0.000-1.000] a [0.000-2.000] b"
    assert (
        said(echo_server, asked(words("<|audio_1|> <|end|> <|audio_2|>"), one)) == "[0.000-1.000] <|end|> <|audio_2|>"
    )
    earlier = [*asked(one, words("a")), {"role": "assistant", "content": "b"}, *asked(words("<|audio_1|> c"))]
    assert said(echo_server, earlier) == "[0.000-1.000] a b <|audio_1|> c"


def test_pictures_are_seen_in_place(echo_server: Server) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "red").save(file, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    seen = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
    assert said(echo_server, asked(words("<|image_1|>What is it?"), seen)) == "[picture] What is it?"
    assert said(echo_server, asked(spoken(recording((0, 1))), seen)) == "[0.000-1.000] [picture]"


def test_sizes_and_ends(echo_server: Server) -> None:
    reply = client(echo_server).chat.completions.create(
        model="phi4mm", messages=asked(words("one two three")), max_completion_tokens=2
    )
    assert reply.choices[0].message.content == "one two"
    assert reply.choices[0].finish_reason == "length"


def test_streams_end_with_usage_and_done(echo_server: Server) -> None:
    body = {"messages": asked(words("one two")), "stream": True, "stream_options": {"include_usage": True}}
    reply = call(echo_server, "POST", "/v1/chat/completions", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools(echo_server: Server, stream: bool) -> None:
    settings: dict[str, Any] = {"model": "phi4mm", "tools": [TOOL], "messages": asked(words(f"Well. {CALLED}"))}
    if stream:
        with client(echo_server).chat.completions.stream(**settings) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = client(echo_server).chat.completions.create(**settings).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert (choice.message.content or "").strip() == "Well."
    [call] = choice.message.tool_calls or ()
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"})


def test_calls_and_their_results_go_back_in_the_models_words(echo_server: Server) -> None:
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    conversation = [
        *asked(words("Paris?")),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "1", "content": '{"sky": "blue"}'},
    ]
    assert said(echo_server, conversation) == f'Paris? {CALLED} {{"sky": "blue"}}'


def test_calls_with_what_no_text_can_hold_harm_nobody(echo_server: Server) -> None:
    """Half of a letter that takes two, and JSON without end."""

    def answer(arguments: str) -> Reply:
        calls = [{"function": {"name": "f", "arguments": arguments}}]
        conversation = [{"role": "assistant", "tool_calls": calls}, *asked(words("Hello"))]
        return call(echo_server, "POST", "/v1/chat/completions", {"messages": conversation})

    assert "Hello" in answer(r'{"a": "\ud83d"}').json()["choices"][0]["message"]["content"]
    refused = answer("[" * 100000 + "]" * 100000)
    assert (refused.status, refused.json()["error"]["param"]) == (400, "messages.0.tool_calls")
    assert "Traceback" not in "".join(echo_server.said)


def test_answers_go_back_as_text_where_they_have_tokens(echo_server: Server) -> None:
    answer = {"role": "assistant", "content": CALLED, "token_ids": []}
    assert said(echo_server, [*asked(words("Hello")), answer, *asked(words("So?"))]).endswith("So?")
    for wrong in ({"role": "user"}, {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}):
        body = {"messages": [answer | wrong]}
        reply = call(echo_server, "POST", "/v1/chat/completions", body)
        assert (reply.status, reply.json()["error"]["param"]) == (400, "messages.0.token_ids")


@pytest.mark.parametrize(
    ("changed", "status", "param"),
    [
        ({"model": "gpt-4o"}, 404, "model"),
        ({"n": 2}, 400, "n"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"stop": ["."]}, 400, "stop"),
        ({"guided_regex": "a+"}, 400, "guided_regex"),
        ({"temperature": 3}, 400, "temperature"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"max_tokens": 0}, 400, "max_tokens"),
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "king", "content": "a"}]}, 400, "messages.0.role"),
        ({"messages": asked({"type": "video_url", "video_url": {"url": "x"}})}, 400, "messages.0.content.0"),
        ({"messages": asked(spoken(b"no recording at all"))}, 400, "messages.0.content.0"),
        ({"messages": asked({"type": "input_audio", "input_audio": {"data": "%%"}})}, 400, "messages.0.content.0"),
        (
            {"messages": asked({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})},
            400,
            "messages.0.content.0",
        ),
        ({"messages": asked({"type": "audio_url", "audio_url": {"url": "http://a.b/c"}})}, 400, "messages.0.content.0"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "tools"),
    ],
)
def test_refusals_say_what_is_wrong(echo_server: Server, changed: dict[str, Any], status: int, param: str) -> None:
    body = {"model": "phi4mm", "messages": asked(words("Hello"))} | changed
    for stream in (False, True):
        reply = call(echo_server, "POST", "/v1/chat/completions", body | {"stream": stream})
        assert reply.status == status, reply.text
        error = reply.json()["error"]
        assert error["param"] == param
        assert error["message"] and error["type"]


def test_harmless_fields_are_let_pass(echo_server: Server) -> None:
    harmless = {"user": "me", "n": 1, "logprobs": False, "response_format": {"type": "text"}, "stop": None}
    assert said(echo_server, asked(words("Hello")), extra_body=harmless) == "Hello"


def test_what_is_too_long(demo_server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        said(demo_server, asked(words("word " * 140000)))
    assert caught.value.code == "context_length_exceeded"


def test_clients_at_once_share_a_batch(demo_server: Server) -> None:
    before = len(demo_server.said)
    questions = [f"Please send the budget to Nina {number}." for number in range(6)]
    with ThreadPoolExecutor(len(questions)) as clients:
        together = [*clients.map(lambda words_: said(demo_server, asked(words(words_)), max_tokens=20), questions)]
    alone = [said(demo_server, asked(words(words_)), max_tokens=20) for words_ in questions]
    assert together == alone
    assert any("answered together" in line for line in demo_server.said[before:])


def test_raw_answers_with_their_tokens(echo_server: Server) -> None:
    settings = {"tools": [TOOL], "skip_special_tokens": False, "return_token_ids": True}
    body = {"messages": asked(words(CALLED))} | settings
    choice = call(echo_server, "POST", "/v1/chat/completions", body).json()["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": CALLED}
    assert choice["token_ids"] == [*range(len(CALLED.split()))]


def test_names_of_media_are_text_where_that_is_asked_for(echo_server: Server) -> None:
    parts = asked(words("<|audio_1|> a"), spoken(recording((0, 1))))
    assert said(echo_server, parts, extra_body={"placeholders": False}) == "<|audio_1|> a [0.000-1.000]"


def test_tokens_are_counted(demo_server: Server) -> None:
    counts = [call(demo_server, "POST", "/tokenize", {"prompt": "hello " * n}).json()["count"] for n in (1, 10)]
    assert 0 < counts[0] < counts[1]
