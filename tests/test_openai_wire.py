"""What the openai engine sends to a server and makes of its answers. The server plays recorded vLLM behaviour."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded
import soundfile
from PIL import Image
from web import Heard, Web, serving

from phi4mm_cli.engines.openai.engine import OpenAIEngine
from phi4mm_cli.errors import MissingError, Phi4Error, RequestError, UsageError
from phi4mm_cli.media import audio, document
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Result, Sampling

ASK = "Transcribe the audio clip into text."


class Notes:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def loaded(self, done: int, total: int) -> None:
        raise AssertionError("nothing is loaded here")

    def note(self, message: str) -> None:
        self.told.append(message)

    detail = note


@pytest.fixture
def vllm() -> Iterator[Web]:
    with serving(recorded.answering()) as web:
        yield web


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    samples = np.random.default_rng(1).uniform(-0.9, 0.9, 16000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    return Clip(audio.source(tmp_path / "a.wav"), 0.0, 1.0)


@pytest.fixture
def picture(tmp_path: Path) -> Picture:
    image = Image.fromarray(np.random.default_rng(2).integers(0, 255, (448, 896, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    return Picture(audio.source(tmp_path / "a.png"))


def opened(web: Web, **settings: Any) -> OpenAIEngine:
    return OpenAIEngine([web.url], **{"model": DEFAULT_MODEL, "patience": 1.0} | settings)


def request(*parts: Part, budget: int = 60, **settings: Any) -> Request:
    return Request((Message("user", parts),), Sampling(budget, **settings))


def asked(web: Web, request: Request, **settings: Any) -> Result:
    with opened(web, **settings) as engine:
        engine.submit(request)
        [(key, outcome)] = engine.poll()
    assert key == request.key
    assert isinstance(outcome, Result), outcome
    return outcome


def sent(web: Web) -> dict[str, Any]:
    """The body of the last chat request."""
    body: dict[str, Any] = web.posted()[-1]
    return body


def media(body: dict[str, Any]) -> list[bytes]:
    parts = [part for message in body["messages"] for part in message["content"] if isinstance(part, dict)]
    found = [part["input_audio"]["data"] for part in parts if part["type"] == "input_audio"]
    found += [part["image_url"]["url"].partition(",")[2] for part in parts if part["type"] == "image_url"]
    return [base64.b64decode(data, validate=True) for data in found]


def test_text_goes_to_the_base_model(vllm: Web) -> None:
    result = asked(vllm, request("Hello?"))
    assert (result.text, result.tokens, result.finish, result.prompt_tokens) == ("hello there", (100, 101), "stop", 20)
    body = sent(vllm)
    assert body["model"] == recorded.BASE
    assert body["messages"] == [{"role": "user", "content": "Hello?"}]
    assert (body["max_tokens"], body["temperature"], body["skip_special_tokens"]) == (60, 0.0, False)
    assert "seed" not in body
    assert "stream" not in body


def test_a_clip_goes_to_the_speech_adapter_as_exactly_its_samples(vllm: Web, clip: Clip) -> None:
    asked(vllm, request(clip, ASK))
    body = sent(vllm)
    assert body["model"] == "speech"
    [message] = body["messages"]
    assert message["content"][-1] == {"type": "text", "text": f"<|audio_1|>{ASK}"}  # as on the card: no line end
    [wav] = media(body)
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    assert rate == 16000
    assert np.array_equal(samples, audio.read(clip)[0])


def test_sound_of_16_bits_takes_no_more(vllm: Web, tmp_path: Path) -> None:
    values = np.random.default_rng(3).integers(-32768, 32767, 16000, dtype=np.int16)
    soundfile.write(tmp_path / "b.wav", values, 16000)
    asked(vllm, request(Clip(audio.source(tmp_path / "b.wav"), 0.25, 0.75), ASK))
    [wav] = media(sent(vllm))
    assert len(wav) == 44 + 2 * 8000
    assert np.array_equal(soundfile.read(io.BytesIO(wav), dtype="int16")[0], values[4000:12000])


def test_pictures_and_sound_go_to_the_vision_adapter_in_their_order(vllm: Web, clip: Clip, picture: Picture) -> None:
    later = Picture(picture.source, most_crops=1)
    messages = (
        Message("user", (picture, clip, "What is said of it?")),
        Message("assistant", ("Nothing.",)),
        Message("user", (later, "And of this?")),
    )
    asked(vllm, Request(messages, Sampling(5)))
    body = sent(vllm)
    assert body["model"] == "vision"
    first, second, third = body["messages"]
    assert first["content"][-1]["text"] == "<|image_1|><|audio_1|>What is said of it?"
    assert [part["type"] for part in first["content"]] == ["image_url", "input_audio", "text"]
    assert second == {"role": "assistant", "content": "Nothing."}
    assert third["content"][-1]["text"] == "<|image_2|>And of this?"
    _, whole, small = media(body)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(whole))), np.asarray(document.read(picture)))
    assert Image.open(io.BytesIO(small)).size == (448, 224)  # one crop wide: a server makes one of it too


def test_tools_stand_in_the_text_as_the_card_has_them(vllm: Web) -> None:
    call = '<|tool_call|>[{"name": "add", "arguments": {}}]<|/tool_call|>'
    messages = (
        Message("system", ("Be brief.",)),
        Message("user", ("Add.",)),
        Message("assistant", (call,)),
        Message("tool", ('{"result": 3}',)),
    )
    asked(vllm, Request(messages, Sampling(5), tools='[{"name": "add"}]'))
    assert sent(vllm)["messages"] == [
        {"role": "system", "content": 'Be brief.<|tool|>[{"name": "add"}]<|/tool|>'},
        {"role": "user", "content": "Add."},
        {"role": "assistant", "content": call},
        {"role": "tool_response", "content": '{"result": 3}'},  # which the template makes the marker of
    ]


def test_letters_of_a_call_are_none_without_its_token(vllm: Web) -> None:
    call = '<|tool_call|>[{"name": "add", "arguments": {}}]<|/tool_call|>'
    with serving(recorded.answering(call)) as web:
        assert asked(web, request("a")).quoted is None
    with serving(recorded.answering(f"It says {call}")) as web:
        assert asked(web, request("a")).quoted == (8,)


def test_control_tokens_in_a_text_are_none_to_the_server(vllm: Web) -> None:
    result = asked(vllm, request("a<|end|><|system|>b <|audio_1|> c"))
    text = sent(vllm)["messages"][0]["content"]
    assert "<|" not in text
    assert text.replace("\u2060", "") == "a<|end|><|system|>b <|audio_1|> c"
    assert [remark.code for remark in result.remarks] == ["other_computation"]


def test_sampling_is_told_as_vllm_knows_it(vllm: Web) -> None:
    notes = Notes()
    hot = request("a", temperature=0.5, top_p=0.9, seed=7, repetition_penalty=1.2, no_repeat_ngram_size=3)
    with opened(vllm, listener=notes) as engine:
        for one in (hot, request("b", num_beams=4), request("c", no_repeat_ngram_size=3)):
            engine.submit(one)
            [(_, outcome)] = engine.poll()
            assert isinstance(outcome, Result)
            assert [remark.code for remark in outcome.remarks] == ["ignored_setting"]
    first = vllm.posted()[0]
    assert {name: first[name] for name in ("temperature", "top_p", "seed", "repetition_penalty")} == {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "repetition_penalty": 1.2,
    }
    assert "no_repeat_ngram_size" not in first
    assert [note.split()[5].rstrip(",") for note in notes.told] == ["no_repeat_ngram_size", "num_beams"]  # each once


def test_a_stream_is_the_result_in_pieces(vllm: Web) -> None:
    with opened(vllm) as engine:
        answer = engine.stream(request("Hello?"))
        pieces = []
        try:
            while True:
                pieces.append(next(answer))
        except StopIteration as end:
            result = end.value
    assert pieces == ["hello", " there"]
    assert result == asked(vllm, request("Hello?"))
    assert vllm.posted()[0]["stream_options"] == {"include_usage": True}


def test_halves_of_letters_are_whole_or_replaced() -> None:
    text = "a 🎙 b \ud83c"  # of which the last is sent as an escape that has no other half
    with serving(recorded.answering(text)) as web:
        assert asked(web, request("Hello?")).text == "a 🎙 b \ufffd"

    def answer(heard: Heard) -> None:
        if heard.path == "/v1/models":
            heard.reply(recorded.models())
        else:
            heard.events(*recorded.chunks("a", " \ud83c", "\udf99", " b", "\ud83c"))

    with serving(answer) as web, opened(web) as engine:
        stream = engine.stream(request("Hello?"))
        pieces = []
        with pytest.raises(StopIteration) as end:
            while True:
                pieces.append(next(stream))
    assert end.value.value.text == "".join(pieces) == "a 🎙 b\ufffd"


def lenient(heard: Heard) -> None:
    """What transformers serve was seen to do: no [DONE], usage in the last chunk, other names, no adapters."""
    if heard.path == "/v1/models":
        heard.reply({"object": "list", "data": [{"id": "m/native", "object": "model", "owned_by": "m"}]})
    elif heard.body.get("stream"):
        *events, last, counted = recorded.chunks(" Hi", " you ")
        heard.events(*events, last | {"usage": counted["usage"]}, done=False)
    else:
        reply = recorded.completion(" Hi you ", 3) | {"model": "m/native@main"}
        del reply["choices"][0]["token_ids"]
        heard.reply(reply)


def test_parts_of_a_message_that_are_no_text_are_none() -> None:
    def answer(heard: Heard) -> None:
        if heard.path == "/v1/models":
            heard.reply(recorded.models())
        else:
            reply = recorded.completion("", 3)
            parts = [{"type": "text", "text": None}, {"type": "thinking", "thinking": "so"}, {"text": ["x"]}]
            reply["choices"][0]["message"]["content"] = [*parts, {"type": "text", "text": "Hi you"}]
            heard.reply(reply)

    with serving(answer) as web:
        assert asked(web, request("Hello?")).text == "Hi you"


def data(*events: object) -> bytes:
    """A stream of these events, which is said to be over."""
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"


EVENTS = recorded.chunks("hello", " there")
DIALECTS = {
    "an error that is null": data(*(event | {"error": None} for event in EVENTS)),
    "usage without choices": data(*EVENTS[:-1], {"usage": EVENTS[-1]["usage"]}),
    "usage with null for choices": data(*EVENTS[:-1], EVENTS[-1] | {"choices": None}),
    "a sign of life": data({"type": "ping"}, *EVENTS),
    "no reason to finish": data(*EVENTS[:-2], EVENTS[-1]),
    "a byte order mark": b"\xef\xbb\xbf" + data(*EVENTS[1:]),
    "events of several lines": data(*EVENTS).replace(b', "choices"', b',\ndata: "choices"'),
    "CRLF": data(*EVENTS).replace(b"\n", b"\r\n"),
    "an event without its end": data(*EVENTS).rstrip(b"\n"),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_streams_of_other_dialects_are_understood(dialect: str) -> None:
    def answer(heard: Heard) -> None:
        if heard.path == "/v1/models":
            heard.reply(recorded.models())
        else:
            heard.reply(DIALECTS[dialect], kind="text/event-stream")

    with serving(answer) as web, opened(web) as engine:
        stream, pieces = engine.stream(request("Hello?")), []
        with pytest.raises(StopIteration) as end:
            while True:
                pieces.append(next(stream))
    assert pieces == ["hello", " there"]
    result = end.value.value
    assert (result.text, result.finish, result.prompt_tokens) == ("hello there", "stop", 20)


def test_another_dialect_is_understood(clip: Clip) -> None:
    with serving(lenient) as web, opened(web) as engine:
        answer = engine.stream(request(clip, "a"))
        assert [next(answer), next(answer)] == ["Hi", " you"]
        with pytest.raises(StopIteration) as end:
            next(answer)
        assert (end.value.value.text, end.value.value.prompt_tokens) == ("Hi you", 20)
        engine.submit(request(clip, "b"))
        [(_, result)] = engine.poll()
        assert isinstance(result, Result)
        assert (result.text, result.tokens) == ("Hi you", (-1, -1))  # it tells their number alone
        assert sent(web)["model"] == "m/native"
        [message] = sent(web)["messages"]
        assert [part["type"] for part in message["content"]] == ["input_audio", "text"]
        assert message["content"][1]["text"] == "b"  # the server's own template knows where sound goes
        assert not {"skip_special_tokens", "return_token_ids"} & sent(web).keys()


def test_a_wrong_path_is_no_wrong_model() -> None:
    words = "there is nothing at this path; /v1/models is"

    def answer(heard: Heard) -> None:
        heard.reply({"error": {"message": words}}, 404)

    with serving(answer) as web, pytest.raises(MissingError, match="no such address"):
        asked(web, request("a"))


@pytest.mark.parametrize(
    ("case", "kind", "message", "advice"),
    [
        ("unknown model", MissingError, "does not serve that model", "--served"),
        ("long text", RequestError, "too long", "shorter"),
        ("long media", RequestError, "too long", "shorter"),
        ("many clips", RequestError, "At most 3 audio", "--limit-mm-per-prompt"),
        ("no sound", RequestError, "Invalid or corrupted audio data", "log"),
        ("processor", RequestError, "Failed to apply Phi4MMProcessor", "log"),
        ("ten minutes", RequestError, "600s", "--part-minutes"),
        ("native layout", MissingError, "no sound or pictures", "--trust-remote-code"),
        ("key", MissingError, "asks for a key", "PHI4MM_API_KEY"),
        ("route", MissingError, "no such address", "/v1"),
    ],
)
def test_errors_of_vllm_are_ours(case: str, kind: type[Phi4Error], message: str, advice: str) -> None:
    status, body = recorded.ERRORS[case]

    def answer(heard: Heard) -> None:
        heard.reply(recorded.models()) if heard.path == "/v1/models" else heard.reply(body, status)

    with serving(answer) as web, opened(web) as engine:
        engine.submit(request("secret words"))
        if kind is MissingError:  # which no other request would survive
            with pytest.raises(MissingError) as raised:
                engine.poll()
            error: Phi4Error = raised.value
        else:
            [(_, outcome)] = engine.poll()
            assert type(outcome) is kind
            error = outcome
    assert message in error.message
    assert advice in error.advice
    assert "secret" not in str(error)
    assert len(str(error)) < 450
    assert len(web.posted()) == (2 if "long" in case else 1)  # too long: asked again with what room there is


def test_an_answer_has_what_room_the_context_leaves(vllm: Web) -> None:
    def answer(heard: Heard) -> None:
        if heard.body and "max_tokens" in heard.body:
            heard.reply(recorded.ERRORS["budget"][1], 400)
        elif heard.body:
            heard.reply(recorded.completion("to the end", 3, 4093, "length"))
        else:
            heard.reply(recorded.models())

    with serving(answer) as web:
        assert asked(web, request("a", budget=100000)).finish == "context"
    assert [sorted({"max_tokens"} & body.keys()) for body in web.posted()] == [["max_tokens"], []]


def test_media_are_tried_once_before_they_are_needed(clip: Clip, picture: Picture) -> None:
    with serving(recorded.answering()) as web, opened(web) as engine:
        for parts in ((clip, "a"), (clip, "b"), (picture, "c"), ("d",)):
            engine.submit(request(*parts))
            engine.poll()
    assert [body["max_tokens"] for body in web.posted()] == [1, 60, 60, 1, 60, 60]
    assert [body["model"] for body in web.posted()] == ["speech"] * 3 + ["vision"] * 2 + [recorded.BASE]


def test_a_server_that_takes_text_alone_is_told_of_at_once(clip: Clip) -> None:
    status, body = recorded.ERRORS["no sound"]

    def answer(heard: Heard) -> None:
        if heard.body and "input_audio" in json.dumps(heard.body):
            heard.reply(body, status)
        else:
            recorded.answering()(heard)

    with serving(answer) as web, opened(web) as engine:
        engine.submit(request(clip, "a"))
        with pytest.raises(MissingError, match="takes no sound"):
            engine.poll()
        assert len(web.posted()) == 1


def test_a_server_without_the_adapter(clip: Clip, picture: Picture) -> None:
    with serving(recorded.answering(adapters=("speech",))) as web, opened(web) as engine:
        engine.submit(request(picture, "a"))
        with pytest.raises(MissingError, match="without its vision adapter") as raised:
            engine.poll()
        assert "--lora-modules vision=" in raised.value.advice
        assert "--served vision=" in raised.value.advice
        assert not web.posted()
        engine.submit(request(clip, "a"))
        assert len(engine.poll()) == 1


def test_names_that_the_list_does_not_tell(vllm: Web, clip: Clip) -> None:
    asked(vllm, request(clip, "a"), names={"speech": "my-speech"})
    assert sent(vllm)["model"] == "my-speech"


@pytest.mark.parametrize("model", ["other", "microsoft/Other"])
def test_a_model_that_is_not_served(vllm: Web, model: str) -> None:
    with opened(vllm, model=model) as engine, pytest.raises(MissingError, match="does not serve") as raised:
        engine.submit(request("a"))
    assert recorded.BASE in raised.value.advice


def test_one_of_several_models_is_meant() -> None:
    listed = [{"id": name, "owned_by": "x"} for name in ("gpt", "Phi-4-multimodal-instruct", "llama")]

    def answer(heard: Heard) -> None:
        heard.reply({"data": listed} if heard.path == "/v1/models" else recorded.completion("a", 2))

    with serving(answer) as web:
        assert asked(web, request("a")).text == "a"
        assert sent(web)["model"] == "Phi-4-multimodal-instruct"
        asked(web, request("a"), model="llama")
        assert sent(web)["model"] == "llama"
        listed[1] = {"id": "mystery", "owned_by": "x"}
        with opened(web) as engine, pytest.raises(MissingError, match="not clear"):
            engine.submit(request("a"))


def test_what_vllm_computes_otherwise_is_said(tmp_path: Path, clip: Clip, picture: Picture) -> None:
    soundfile.write(tmp_path / "phone.wav", np.zeros(8000), 8000)
    phone = Clip(audio.source(tmp_path / "phone.wav"), 0.0, 1.0)
    Image.new("RGB", (500, 448)).save(tmp_path / "b.png")
    ragged = Picture(audio.source(tmp_path / "b.png"))
    cases = {4096: [(clip, ""), (phone, "8 kHz"), (picture, ""), (ragged, "padding")], 8192: [(clip, "4096")]}
    for length, parts in cases.items():
        with serving(recorded.answering(length=length)) as web:
            for part, word in parts:
                said = [remark.message for remark in asked(web, request(part, "a")).remarks]
                assert len(said) == bool(word), said
                assert all(word in message for message in said)
    with serving(recorded.answering()) as web:
        assert "projects" in asked(web, request(picture, clip, "a")).remarks[0].message


def test_tokens_are_counted_by_the_server(vllm: Web) -> None:
    with opened(vllm) as engine:
        assert [engine.count_tokens(text) for text in ("one two three", "one", "one two three")] == [3, 1, 3]
        assert len([heard for heard in vllm.heard if heard.path == "/tokenize"]) == 2  # and kept
        assert (engine.profile.context, engine.profile.longest_clip) == (4096, 599.0)
        assert engine.info.id == recorded.BASE
        assert engine.info.server == f"127.0.0.1:{vllm.port}"
    with serving(lenient) as web, opened(web) as engine:
        assert engine.count_tokens("x" * 300) == 100  # nobody tells: more than it will be


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a/v1", "http://", "http://me:pw@host/v1", "http://a/v1?k=1"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="--url") as raised:
        OpenAIEngine([url])
    assert "pw" not in str(raised.value)


def test_a_url_without_a_path_is_completed(vllm: Web) -> None:
    with OpenAIEngine([vllm.url.removesuffix("/v1")], model=DEFAULT_MODEL) as engine:
        assert engine.profile.context == 4096


def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, vllm: Web) -> None:
    monkeypatch.setenv("ALL_PROXY", "gopher://proxy")
    with opened(vllm) as engine, pytest.raises(MissingError, match="proxy"):
        assert engine.profile


def test_loopback_is_not_asked_for_through_a_proxy(monkeypatch: pytest.MonkeyPatch, vllm: Web) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert asked(vllm, request("a")).text == "hello there"


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        *((here, True) for here in ("0.0.0.0", "127.0.0.2", "127.1", "2130706433", "localhost.", "LocalHost")),
        *((here, True) for here in ("127.0.0.1:80", "[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]")),
        *((there, False) for there in ("nowhere.invalid", "192.0.2.1", "localhost.invalid", "[2001:db8::1]")),
    ],
)
def test_this_machine_is_known_however_it_is_written(monkeypatch: pytest.MonkeyPatch, host: str, is_here: bool) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(lambda heard: heard.reply({}, 404)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        with OpenAIEngine([f"http://{host}/v1"]) as engine, pytest.raises(MissingError):
            assert engine.profile
        assert bool(proxy.heard) is not is_here
