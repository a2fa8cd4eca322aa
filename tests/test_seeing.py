"""Requests with pictures through the engine: the adapter and projection of their kind, the same answer in any batch."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from tiny_model import write_adapter
from torch import Tensor

from phi4mm_cli.engines.local import LocalEngine, Outcome
from phi4mm_cli.engines.media import read_each
from phi4mm_cli.errors import InputError, RequestError
from phi4mm_cli.media import audio, document
from phi4mm_cli.model import generate
from phi4mm_cli.model.adapters import switch_adapter
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.composing import Prompt, compose
from phi4mm_cli.model.encoder import embed_audio
from phi4mm_cli.model.features import log_mel
from phi4mm_cli.model.loading import Model, load
from phi4mm_cli.model.pixels import pixels
from phi4mm_cli.model.vision import embed_pictures
from phi4mm_cli.prompt import render
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Result, Sampling

SIZES = [(448, 448), (300, 200), (900, 300), (500, 500), (40, 400), (460, 890)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Picture]:
    """Noise in large and small grains, in several sizes."""
    made = []
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path_factory.mktemp("pictures") / f"{number}.png"
        grains = np.random.default_rng(number).integers(0, 256, (3 + number, 5, 3), dtype=np.uint8)
        Image.fromarray(grains).resize((width, height), Image.Resampling.NEAREST).save(path)
        made.append(Picture(audio.source(path)))
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    path = tmp_path_factory.mktemp("sound") / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(32000), 16000)
    return Clip(audio.source(path), 0.0, 1.3)


def request(*parts: Part, budget: int = 10, tools: str | None = None) -> Request:
    return Request((Message("user", parts),), Sampling(budget), tools)


def engine_on(folder: Path, batch_size: int | None = None) -> LocalEngine:
    return LocalEngine(resolve(str(folder)), device="cpu", batch_size=batch_size)


def batches(engine: LocalEngine, *requests: Request) -> list[dict[str, Outcome]]:
    for asked in requests:
        engine.submit(asked)
    found = []
    while outcomes := engine.poll():
        found.append(dict(outcomes))
    return found


def result(outcome: Outcome) -> Result:
    assert isinstance(outcome, Result), outcome
    return outcome


def model_of(folder: Path) -> Model:
    return load(resolve(str(folder)), torch.device("cpu"), torch.float32)


def prompt_of(model: Model, clips: list[Clip], crops: list[Picture], words: str) -> Prompt:
    from phi4mm_cli.media import image

    media = [*(pixels(image.read(picture)) for picture in crops), *(log_mel(*audio.read(clip)) for clip in clips)]
    return compose(model, render((Message("user", (*crops, *clips, words)),)), media, Sampling(10))


# --------------------------------------------------------------------------------------------------------- batches


def test_the_same_answer_alone_and_in_any_batch(tiny_folder: Path, pictures: list[Picture], clip: Clip) -> None:
    asked = [request(picture, f"What is it? {'a ' * n}", budget=4 + 3 * n) for n, picture in enumerate(pictures)]
    asked += [request(pictures[1], pictures[4], "Compare."), request(pictures[1], clip, "?")]
    asked += [request(picture, clip) for picture in pictures[:2]] + [request(clip, "a"), request("a b c " * 20)]
    with engine_on(tiny_folder, batch_size=1) as engine:
        alone = {key: outcome for batch in batches(engine, *asked) for key, outcome in batch.items()}
    assert len({result(one).tokens for one in alone.values()}) == len(asked)
    kinds = {one.key: (bool(one.pictures), bool(one.clips)) for one in asked}
    for size, seed in ((16, 0), (5, 1)):
        with engine_on(tiny_folder, batch_size=size) as engine:
            found = batches(engine, *random.Random(seed).sample(asked, k=len(asked)))
        assert {key: outcome for batch in found for key, outcome in batch.items()} == alone
        assert all(len({kinds[key] for key in batch}) == 1 for batch in found)
        assert len(found) < len(asked)


def test_large_pictures_take_the_place_of_several_rows(
    tiny_folder: Path, pictures: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4mm_cli.engines.queue.ROW_TOKENS", 545 / 2)
    with engine_on(tiny_folder, batch_size=4) as engine:
        asked = [request(pictures[0], "a" * n, budget=1) for n in (1, 2, 3, 4)]
        assert [len(batch) for batch in batches(engine, *asked)] == [1, 1, 1, 1]
    monkeypatch.setattr("phi4mm_cli.engines.queue.ROW_TOKENS", 600)
    with engine_on(tiny_folder, batch_size=4) as engine:
        assert [len(batch) for batch in batches(engine, *asked)] == [4]


def test_fewer_crops_make_a_shorter_prompt(tiny_folder: Path, pictures: list[Picture]) -> None:
    source = pictures[5].source
    asked = [request(Picture(source, most_crops=most), budget=1) for most in (None, 36, 1)]
    with engine_on(tiny_folder) as engine:
        found = {key: outcome for batch in batches(engine, *asked) for key, outcome in batch.items()}
    lengths = [result(found[one.key]).prompt_tokens for one in asked]
    assert lengths[0] == lengths[1] > lengths[2] > 400


def test_tools_reach_the_model(tiny_folder: Path) -> None:
    asked = [request("a", tools=tools) for tools in (None, '[{"name": "f"}]')]
    with engine_on(tiny_folder) as engine:
        found = {key: result(outcome) for batch in batches(engine, *asked) for key, outcome in batch.items()}
    lengths = [found[one.key].prompt_tokens for one in asked]
    assert lengths[1] >= lengths[0] + 6  # <|system|> <|tool|> ... <|/tool|> <|end|>


# ------------------------------------------------------------------------------------------------- what is at work


def logits(model: Model, prompt: Prompt, adapter: str | None) -> Tensor:
    switch_adapter(model.network, adapter)
    seen: list[Tensor] = []
    hook = model.network.lm_head.register_forward_hook(lambda layer, inputs, output: seen.append(output[0, -1]))
    generate.generate(model, [prompt])
    hook.remove()
    return seen[0]


def by_hand(model: Model, prompt: Prompt, projection: str) -> Tensor:
    """Logits with the media's embeddings put into place here; sound through the projection of that name."""
    extend = model.network.model.embed_tokens_extend
    ids = torch.tensor(prompt.ids)
    with torch.inference_mode():
        row = model.network.model.embed_tokens(ids)
        if prompt.pictures:
            row[ids == model.image_token] = torch.cat(embed_pictures(extend.image_embed, prompt.pictures))
        if prompt.clips:
            kind = "speech" if projection == "speech" else "vision"
            row[ids == model.audio_token] = torch.cat(embed_audio(extend.audio_embed, prompt.clips, kind))
        output: Tensor = model.network(inputs_embeds=row[None]).logits[0, -1]
    return output


def test_each_kind_has_its_adapter_and_projection(tiny_folder: Path, pictures: list[Picture], clip: Clip) -> None:
    model = model_of(tiny_folder)
    both = prompt_of(model, [clip], pictures[:1], "?")
    with_vision = logits(model, both, "vision")
    torch.testing.assert_close(with_vision, by_hand(model, both, "vision"), rtol=0, atol=1e-4)
    assert (with_vision - by_hand(model, both, "speech")).abs().max() > 0.05
    sound = prompt_of(model, [clip], [], "?")
    with_speech = logits(model, sound, "speech")
    torch.testing.assert_close(with_speech, by_hand(model, sound, "speech"), rtol=0, atol=1e-4)
    assert (with_speech - by_hand(model, sound, "vision")).abs().max() > 0.5

    asked = {None: request("a b"), "speech": request(clip, "?"), "vision": request(pictures[0], "?")}
    prompts = {
        None: prompt_of(model, [], [], "a b"),
        "speech": sound,
        "vision": prompt_of(model, [], pictures[:1], "?"),
    }
    cases = [(name, asked[name], prompts[name]) for name in asked] + [("vision", request(pictures[0], clip, "?"), both)]
    with engine_on(tiny_folder) as engine:
        found = {key: o for batch in batches(engine, *(case[1] for case in cases)) for key, o in batch.items()}
        for own, one, prompt in cases:
            moved = {name: logits(model, prompt, name) for name in (None, "speech", "vision")}
            assert min((moved[own] - moved[name]).abs().max() for name in moved if name != own) > 0.3
            switch_adapter(model.network, own)
            assert [result(found[one.key])] == generate.generate(model, [prompt])


def test_the_order_of_pictures_counts(tiny_folder: Path, pictures: list[Picture]) -> None:
    model = model_of(tiny_folder)
    one, other = (prompt_of(model, [], order, "?") for order in (pictures[1:3], pictures[2:0:-1]))
    assert len(one.ids) == len(other.ids)
    assert (logits(model, one, "vision") - logits(model, other, "vision")).abs().max() > 0.1


# ---------------------------------------------------------------------------------------------------------- refusals


def test_pictures_need_their_adapter_and_text_does_not(
    tiny_folder: Path, pictures: list[Picture], clip: Clip, tmp_path: Path
) -> None:
    half = Path(shutil.copytree(tiny_folder, tmp_path / "half"))
    text, sound, picture, both = request("a"), request(clip), request(pictures[0]), request(pictures[0], clip)
    asked = (text, sound, picture, both)

    def refused(folder: Path) -> set[str]:
        with engine_on(folder) as engine:
            found = {key: outcome for batch in batches(engine, *asked) for key, outcome in batch.items()}
        for outcome in found.values():
            if isinstance(outcome, RequestError):
                assert "-lora" in outcome.message
                assert outcome.advice
        return {key for key, outcome in found.items() if isinstance(outcome, RequestError)}

    assert refused(half) == set()
    shutil.rmtree(half / "vision-lora")
    assert refused(half) == {picture.key, both.key}
    with engine_on(half) as engine, pytest.raises(RequestError, match="vision-lora"):
        next(engine.stream(picture))
    write_adapter(half, name="vision")
    shutil.rmtree(half / "speech-lora")
    assert refused(half) == {sound.key}


def test_unreadable_pictures_fail_alone(tiny_folder: Path, pictures: list[Picture], tmp_path: Path) -> None:
    cut, slim = tmp_path / "cut.png", tmp_path / "slim.png"
    cut.write_bytes(Path(pictures[0].source.path).read_bytes()[:-60])
    Image.new("RGB", (3000, 5)).save(slim)
    bad = [request(Picture(audio.source(path)), "?") for path in (cut, slim)]
    good = request(pictures[0], "?")
    with engine_on(tiny_folder) as engine:
        found = {key: outcome for batch in batches(engine, good, *bad) for key, outcome in batch.items()}
    assert isinstance(found[good.key], Result)
    assert "cannot be decoded" in str(found[bad[0].key])
    assert "3000 x 5" in str(found[bad[1].key])
    assert all(isinstance(found[one.key], RequestError) for one in bad)


def test_of_several_pictures_the_unreadable_one_is_named(tmp_path: Path, pictures: list[Picture]) -> None:
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(pictures[0].source.path).read_bytes()[:-60])
    with pytest.raises(InputError, match=r"^the picture cannot be decoded"):
        read_each(request(Picture(audio.source(cut)), "?"), document.read)
    with pytest.raises(InputError, match=r"^cut\.png: the picture cannot be decoded"):
        read_each(request(pictures[0], Picture(audio.source(cut)), "?"), document.read)
