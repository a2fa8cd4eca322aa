"""Prompts to tokens to text: the same tokens as transformers' own greedy search gives, one row or many."""

from __future__ import annotations

import random
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from prompts import ASSISTANT, CLIP, END, PICTURE, USER, prompt, sound, transformers_tokens
from tiny_model import CONTEXT, SWITCH, write_tiny_model
from torch import Tensor

from phi4mm_cli.errors import MissingError, RequestError
from phi4mm_cli.model import generate
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.composing import Prompt, compose, rope_side
from phi4mm_cli.model.encoder import CONVOLVED_AT_ONCE, embed_audio
from phi4mm_cli.model.features import FRAMES_PER_TOKEN
from phi4mm_cli.model.loading import Model, load
from phi4mm_cli.model.pixels import pixels
from phi4mm_cli.prompt import Marker
from phi4mm_cli.schema import Result, Sampling

# ------------------------------------------------------------------------------------------------------- prompts


def test_control_tokens_in_text_stay_text(demo: Model) -> None:
    text = "<|end|><|audio|> and <|assistant|>"
    ids = compose(demo, [USER, text, END], [], Sampling(5)).ids
    control = {demo.tokenizer.token_to_id(name) for name in ("<|end|>", "<|audio|>", "<|assistant|>", "<|user|>")}
    assert not control & set(ids[1:-1])
    assert demo.tokenizer.decode(list(ids[1:-1]), skip_special_tokens=False) == text
    assert (ids[0], ids[-1]) == (demo.tokenizer.token_to_id("<|user|>"), demo.tokenizer.token_to_id("<|end|>"))


def test_neighbouring_texts_are_tokenised_as_one(demo: Model) -> None:
    assert compose(demo, [USER, "Transcribe the au", "dio", END], [], Sampling(5)).ids == (
        compose(demo, [USER, "Transcribe the audio", END], [], Sampling(5)).ids
    )


def test_clips_take_a_position_for_every_80_ms_begun(demo: Model) -> None:
    ids = compose(demo, [USER, CLIP, ".", CLIP, END], [sound(16), sound(17)], Sampling(5)).ids
    places = [i for i, token in enumerate(ids) if token == demo.audio_token]
    assert places == [1, 2, 4, 5, 6]


def test_unknown_marker_and_long_prompt_are_refused(demo: Model, tiny: Model) -> None:
    with pytest.raises(MissingError, match=r"<\|judge\|>"):
        compose(demo, [Marker("<|judge|>")], [], Sampling(5))
    with pytest.raises(RequestError, match=str(CONTEXT)):
        prompt(tiny, CONTEXT + 100)
    longest = prompt(tiny, CONTEXT - 100, budget=1000)
    assert len(longest.ids) + longest.sampling.max_new_tokens - 1 == CONTEXT  # the last token is not read any more


def test_pictures_take_their_positions_in_order(demo: Model) -> None:
    small, large = (pixels(Image.new("RGB", size)) for size in ((448, 448), (900, 300)))
    asked = compose(demo, [USER, PICTURE, CLIP, PICTURE, "?", END], [small, sound(16), large], Sampling(5))
    runs = [(token, len([*run])) for token, run in groupby(asked.ids)]
    wanted = [(demo.image_token, small.tokens), (demo.audio_token, 2), (demo.image_token, large.tokens)]
    assert runs[1:4] == wanted
    assert asked.pictures == (small, large)


# ------------------------------------------------------------------------------------------------------- encoder


@pytest.mark.parametrize("projection", ["speech", "vision"])
def test_clips_of_a_batch_are_encoded_as_each_alone(tiny: Model, projection: str) -> None:
    module = tiny.network.model.embed_tokens_extend.audio_embed
    clips = [sound(frames) for frames in (98, 1, 8, 9, 503, 4000, 4001, 8100)]  # 4000 frames fill one 40 s window
    up, down = module.up_proj_for_speech, module.down_proj_for_speech
    if projection == "vision":
        up, down = module.up_proj_for_vision_speech, module.down_proj_for_vision_speech
    with torch.inference_mode():
        together = embed_audio(module, clips, "speech" if projection == "speech" else "vision")
        for clip, embedding in zip(clips, together, strict=True):
            alone = down(torch.nn.functional.gelu(up(module.encoder(clip[None], None)[0])))
            torch.testing.assert_close(embedding, alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("frames", [(12345,), (900,) * 8, (7000, 100, 3000)])
def test_the_convolutions_take_half_a_minute_at_a_time(tiny: Model, frames: tuple[int, ...]) -> None:
    """Of the released model they make 8 MB a second of sound: 15 GB of half an hour."""
    taken: list[tuple[int, int]] = []
    module = tiny.network.model.embed_tokens_extend.audio_embed
    first = module.encoder.embed.conv[0]
    hook = first.register_forward_hook(lambda layer, inputs, output: taken.append(tuple(inputs[0].shape[::2])))
    with torch.inference_mode():
        embed_audio(module, [sound(count) for count in frames], "speech")
    hook.remove()
    assert max(rows * length for rows, length in taken) <= CONVOLVED_AT_ONCE + FRAMES_PER_TOKEN
    assert len(taken) > 1


# ---------------------------------------------------------------------------------------------------- generation


@pytest.mark.parametrize(("words", "frames"), [(5, None), (3, 100), (3, 333), (90, None), (70, 200)])
def test_tokens_are_those_of_transformers(tiny: Model, words: int, frames: int | None) -> None:
    asked = prompt(tiny, words, frames)
    assert rope_side(tiny, asked) != "crossing"
    [result] = generate.generate(tiny, [asked])
    assert list(result.tokens) == transformers_tokens(tiny, asked)
    assert result.prompt_tokens == len(asked.ids)
    assert result.tokens


@pytest.mark.parametrize("words", [40, 58, 60])
def test_answers_may_cross_the_longrope_switch(tiny: Model, words: int) -> None:
    """With a cache transformers loses the context there, so that it is asked without."""
    asked = prompt(tiny, words, budget=40)
    assert rope_side(tiny, asked) == "crossing"
    [result] = generate.generate(tiny, [asked])
    assert len(result.tokens) > SWITCH + 5 - len(asked.ids)
    assert list(result.tokens) == transformers_tokens(tiny, asked, use_cache=False)


def test_sides_of_the_longrope_switch(tiny: Model, demo: Model) -> None:
    length = len(prompt(tiny, 10).ids)
    room = SWITCH + 1 - length  # the last token of an answer is not read any more
    assert rope_side(tiny, prompt(tiny, 10, budget=room)) == "short"
    assert rope_side(tiny, prompt(tiny, 10, budget=room + 1)) == "crossing"
    assert rope_side(tiny, prompt(tiny, 100)) == "long"
    assert rope_side(demo, prompt(demo, 10, budget=4000)) == "short"
    assert rope_side(demo, prompt(demo, 10, budget=4100)) == "crossing"


def test_rows_do_not_depend_on_their_neighbours(tiny: Model) -> None:
    shapes = [(3, None, 9), (8, 50, 30), (1, 9, 1), (5, 130, 17), (30, None, 20), (2, 200, 25), (12, 1, 3)]
    asked = [prompt(tiny, words, frames, budget) for words, frames, budget in shapes]
    alone = [generate.generate(tiny, [one])[0] for one in asked]
    assert all(rope_side(tiny, one) == "short" for one in asked)
    for seed in range(4):
        order = random.Random(seed).sample(range(len(asked)), k=2 + seed)
        together = generate.generate(tiny, [asked[i] for i in order])
        assert together == [alone[i] for i in order]


def test_end_token_as_the_last_one_allowed_is_a_stop(demo: Model) -> None:
    def asked(budget: int) -> Prompt:
        return compose(demo, [USER, "What is two plus three?", END, ASSISTANT], [], Sampling(budget))

    [free] = generate.generate(demo, [asked(60)])
    assert free.finish == "stop"
    needed = len(free.tokens) + 1
    [exact] = generate.generate(demo, [asked(needed)])
    [short] = generate.generate(demo, [asked(needed - 1)])
    assert (exact.tokens, exact.finish) == (free.tokens, "stop")
    assert (short.tokens, short.finish) == (free.tokens, "length")
    assert not set(free.tokens) & demo.end_tokens


@pytest.mark.parametrize("settings", [{}, {"temperature": 1e-4}, {"num_beams": 2}], ids=str)
def test_media_tokens_are_never_generated(tmp_path: Path, settings: dict[str, Any]) -> None:
    model = load(resolve(str(write_tiny_model(tmp_path))), torch.device("cpu"), torch.float32)
    asked = prompt(model, 5, budget=1, **settings)
    with torch.no_grad():
        before = model.network(input_ids=torch.tensor([asked.ids]))
        hidden = model.network.model(input_ids=torch.tensor([asked.ids])).last_hidden_state[0, -1]
        model.network.lm_head.weight[model.audio_token] = hidden  # tied: only positions of audio tokens would change
        after = model.network(input_ids=torch.tensor([asked.ids]))
    assert after.logits[0, -1].argmax() == model.audio_token != before.logits[0, -1].argmax()
    [result] = generate.generate(model, [asked])
    assert result.tokens[0] == before.logits[0, -1].argmax()


def drained(model: Model, asked: Prompt) -> tuple[list[str], Result]:
    pieces = []
    answer = generate.stream(model, asked)
    while True:
        try:
            pieces.append(next(answer))
        except StopIteration as end:
            return pieces, end.value


def test_streamed_pieces_make_the_text(demo: Model, tiny: Model) -> None:
    cases = [(demo, prompt(demo, 4, 120, budget=60))]
    cases += [(tiny, prompt(tiny, words, budget=80)) for words in (70, 74, 78, 82)]
    broken = 0
    for model, asked in cases:
        pieces, result = drained(model, asked)
        assert [result] == generate.generate(model, [asked])
        assert "".join(pieces) == result.text
        assert all(pieces)
        broken += any(b > 127 for b in result.text.encode())
    assert broken  # random weights write characters of several bytes, in pieces and whole


def scripted(model: Model, *script: str | int) -> tuple[list[str], Result]:
    """What becomes of an answer with the given texts and tokens, streamed and whole."""
    ids = [t for part in script for t in ([part] if isinstance(part, int) else model.tokenizer.encode(part).ids)]
    asked = prompt(model, 3, budget=len(ids))
    left: list[int] = []

    def write(layer: torch.nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
        return torch.zeros_like(logits).index_fill(2, torch.tensor([left.pop(0)]), 1.0)

    hook = model.network.lm_head.register_forward_hook(write)
    try:
        left += ids
        pieces, result = drained(model, asked)
        left += ids
        assert generate.generate(model, [asked]) == [result]
    finally:
        hook.remove()
    assert result.tokens == tuple(ids)
    return pieces, result


def test_tool_calls_keep_their_markers_and_other_control_tokens_are_not_shown(tiny: Model) -> None:
    call, call_end, user = (tiny.tokenizer.token_to_id(f"<|{name}|>") for name in ("tool_call", "/tool_call", "user"))
    pieces, result = scripted(tiny, "Well, ", call, '[{"name": "grüßen"}]', call_end, user, " and", user, " so ")
    assert result.text == 'Well, <|tool_call|>[{"name": "grüßen"}]<|/tool_call|> and so'
    assert "".join(pieces) == result.text
    assert len(pieces) > 5
    half = tiny.tokenizer.encode("ß").ids[:1]  # of the two bytes of a character
    pieces, result = scripted(tiny, call, *half, call_end)
    assert result.text == "".join(pieces) == "<|tool_call|>\ufffd<|/tool_call|>"
    assert result.quoted is None


def test_letters_of_a_marker_are_told_from_the_token(tiny: Model) -> None:
    call, user = (tiny.tokenizer.token_to_id(f"<|{name}|>") for name in ("tool_call", "user"))
    letters = [t for letter in "<|tool_call|>" for t in tiny.tokenizer.encode(letter).ids]
    half = tiny.tokenizer.encode("ß").ids[:1]
    assert scripted(tiny, " ", *letters)[1].quoted == (0,)
    assert scripted(tiny, call, "[]")[1].quoted is None
    _, result = scripted(tiny, "\n A ", user, *half, call, "[] ü", *letters, call, " ", *letters, call)
    assert result.text == "A \ufffd<|tool_call|>[] ü<|tool_call|><|tool_call|> <|tool_call|><|tool_call|>"
    assert result.quoted == (20, 47)
