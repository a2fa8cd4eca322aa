"""The vision tower: what transformers computes from one picture when no patch is kept from seeing the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_model import write_tiny_model
from torch import Tensor
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.model.pixels import Crops, pixels
from phi4mm_cli.model.vision import embed_pictures, encode

SIZES = [(448, 448), (640, 480), (900, 300), (30, 1000), (1344, 1300)]  # the first and the last fill their grids


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny"))
    return Phi4MultimodalForCausalLM.from_pretrained(folder).model.embed_tokens_extend.image_embed


def crops(width: int, height: int) -> Crops:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixels(Image.fromarray(noise))


def of_transformers(module: Any, picture: Crops, attention: str) -> Tensor:
    module.img_processor.set_attn_implementation(attention)
    for layer in module.img_processor.encoder.layers:
        layer.self_attn.is_causal = True  # as it comes
    size = module.img_projection_up.out_features
    ids = torch.full((1, picture.tokens), module.config.vision_config.image_token_id)
    values, mask = picture.values[None], picture.mask[None]
    embedded: Tensor = module(ids, torch.zeros(1, picture.tokens, size), values, torch.tensor([picture.size]), mask)
    module.img_processor.set_attn_implementation("sdpa")
    return embedded[0]


@pytest.mark.parametrize("size", SIZES)
def test_embeddings_are_those_of_transformers(module: Any, size: tuple[int, int]) -> None:
    picture = crops(*size)
    with torch.inference_mode():
        expected = of_transformers(module, picture, "eager")
        [found] = embed_pictures(module, [picture])
    assert found.shape == (picture.tokens, module.img_projection_up.out_features)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    assert expected.std() > 0.1


def test_patches_of_a_square_picture_see_those_behind_them(module: Any) -> None:
    """The first position of each part changes with the last corner, which transformers keeps it from seeing."""
    picture = crops(448, 448)
    other = Crops(picture.values.clone(), picture.mask, picture.size, picture.tokens)
    other.values[:, :, -28:, -28:] += 1.0
    with torch.inference_mode():
        [found], [changed] = embed_pictures(module, [picture]), embed_pictures(module, [other])
    for first in (0, 16 * 17 + 1):  # of the crops, of the whole
        assert (found - changed)[first].abs().max() > 1e-3 * found.std()


def test_pictures_do_not_depend_on_their_neighbours(module: Any) -> None:
    pictures = [crops(*size) for size in SIZES]
    with torch.inference_mode():
        together = embed_pictures(module, pictures)
        backwards = embed_pictures(module, pictures[::-1])[::-1]
        for picture, one, other in zip(pictures, together, backwards, strict=True):
            [alone] = embed_pictures(module, [picture])
            assert torch.equal(alone, one)
            assert torch.equal(alone, other)


def test_newlines_and_separator_stand_where_rows_end(module: Any) -> None:
    picture = crops(640, 480)  # 32 columns and 24 rows of positions
    with torch.inference_mode():
        [features] = encode(module, [picture])
    newline, separator = module.sub_img_feature_extensor.reshape(-1), module.global_img_feature_extensor.reshape(-1)
    places = [i for i, row in enumerate(features) if torch.equal(row, newline)]
    assert places == [33 * (i + 1) - 1 for i in range(24)] + [793 + 17 * (i + 1) - 1 for i in range(16)]
    assert [i for i, row in enumerate(features) if torch.equal(row, separator)] == [792]


def test_a_loss_reaches_every_weight_in_use(module: Any) -> None:
    module.zero_grad()
    embed_pictures(module, [crops(500, 300)])[0].square().mean().backward()
    layers = module.img_processor.encoder.layers
    used = [module.sub_img_feature_extensor, module.global_img_feature_extensor, module.img_projection_up.weight]
    used += [module.img_processor.embeddings.patch_embedding.weight, layers[0].mlp.fc1.weight, layers[1].mlp.fc1.weight]
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in used)
    assert layers[2].mlp.fc1.weight.grad is None  # behind the feature layer
