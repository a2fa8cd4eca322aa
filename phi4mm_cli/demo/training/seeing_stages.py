"""The stages that train what is seen: the tower, its projection, the vision adapter."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from phi4mm_cli.demo.training import architecture, guiding, looking, loop, parts, seeing
from phi4mm_cli.demo.training.examples import Batch, Encoder
from phi4mm_cli.demo.training.parts import Settings
from phi4mm_cli.demo.world import scenes
from phi4mm_cli.model import vision
from phi4mm_cli.model.encoder import encode

COMPARISONS = 8  # in writing, beside each batch


def look(rank: int, settings: Settings) -> loop.Stage:
    """The vision tower alone."""
    tokens = parts.tokenizer(settings.folder)
    writer = Encoder(tokens)
    module = architecture.new_network(parts.vocabulary(tokens)).model.embed_tokens_extend.image_embed
    heads = looking.Heads(architecture.VISION, parts.vocabulary(tokens))
    named = {f"tower.{name}": parameter for name, parameter in parts.tower(module).items()}
    named |= {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
    done = loop.resumed(settings.state())
    return loop.Stage(
        parameters=named,
        batches=looking.batches(writer, 1000 * done + rank, 6),
        loss=lambda batch: looking.loss(module, heads, batch),
        steps=settings.steps or 4000,
        learning_rate=2e-3,
        state=settings.state(),
        minutes=settings.minutes,
    )


def project(rank: int, settings: Settings) -> loop.Stage:
    """The projection of pictures alone: it learns to put words where the base model has them."""
    tokens = parts.tokenizer(settings.folder)
    network = architecture.new_network(parts.vocabulary(tokens))
    settings.begin_from("far", parts.decoder(network))
    image = network.model.embed_tokens_extend.image_embed
    settings.begin_from("look", {f"tower.{name}": parameter for name, parameter in parts.tower(image).items()})
    network.requires_grad_(False)
    named = _projection(image)
    for parameter in named.values():
        parameter.requires_grad_(True)

    def loss(batch: list[looking.Seen] | list[looking.Strip]) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            features = looking.encoded(image, batch)
        words = looking.labels(batch)[:, looking.WORD]
        guide, right = guiding.guide_loss(network, [_projected(image, features)], [words], 0.03)
        return guide, {"guide": float(guide.detach()), "guided": right}

    batches = looking.batches(Encoder(tokens), 1000 * loop.resumed(settings.state()) + rank, 6)
    return loop.Stage(named, batches, loss, settings.steps or 1000, 2e-3, settings.state(), settings.minutes)


def _projection(image: nn.Module) -> dict[str, nn.Parameter]:
    return {f"image_projection.{name}": p for name, p in image.named_parameters() if "img_projection" in name}


def _projected(image: Any, features: Tensor) -> Tensor:
    projected: Tensor = image.img_projection_down(nn.functional.gelu(image.img_projection_up(features)))
    return projected


def see(rank: int, settings: Settings) -> loop.Stage:
    """The vision adapter and the projections, on a base model, an audio encoder and a tower that stay as they are."""
    writer, network, pool = parts.with_adapter(settings, "vision")
    audio, image = network.model.embed_tokens_extend.audio_embed, network.model.embed_tokens_extend.image_embed
    settings.begin_from("speech", {f"encoder.{n}": p for n, p in audio.encoder.named_parameters()})
    settings.begin_from("look", {f"tower.{name}": parameter for name, parameter in parts.tower(image).items()})
    named = _projection(image)
    if not settings.state().exists():
        settings.begin_from("project", named)
        # It writes down the words that it finds in media, in their order, and answers questions: so will this one.
        architecture.begin_adapter(network, "vision", "speech", load_file(settings.state("speech")))
    places = nn.Linear(network.config.hidden_size, len(scenes.SPOTS) + 1)
    named |= {f"places.{name}": parameter for name, parameter in places.named_parameters()}
    lines = nn.Linear(network.config.hidden_size, looking.MOST_LINES + 1)
    named |= {f"lines.{name}": parameter for name, parameter in lines.named_parameters()}
    before = nn.Linear(network.config.hidden_size, network.config.hidden_size)
    named |= {f"before.{name}": parameter for name, parameter in before.named_parameters()}
    named |= {f"audio_projection.{n}": p for n, p in audio.named_parameters() if "_for_vision_speech" in n}
    named = parts.thawed(network, named)
    steps, done = settings.steps or 5000, loop.resumed(settings.state())
    batches = seeing.batches(pool, writer, 1000 * done + rank, done / steps, 1 / steps, 7, 0.2, architecture.SWITCH)
    pointing = guiding.Pointing(network)
    rng = random.Random(1000 * done + rank)

    def loss(drawn: tuple[list[seeing.Shown], Batch]) -> tuple[Tensor, dict[str, float]]:
        shown, batch = drawn
        seen = [picture for item in shown for picture in item.seen]
        with torch.no_grad():
            features = vision.encode(image, [picture.crops for picture in seen])
        embedded = [_projected(image, rows) for rows in features]
        guide, right = guiding.guide_loss(network, embedded, [picture.words for picture in seen], 0.03)
        clips = [item.clip for item in shown if item.clip is not None]
        with torch.no_grad():
            heard = encode(audio.encoder, [clip.features for clip in clips]) if clips else []
        spoken = [
            audio.down_proj_for_vision_speech(nn.functional.gelu(audio.up_proj_for_vision_speech(rows)))
            for rows in heard
        ]
        media = {writer.special["<|image|>"]: embedded, writer.special["<|audio|>"]: spoken}
        # To compare is learnt from words: pictures take too long for what three words of an answer teach.
        compared, practised = parts.answer_loss(network, seeing.comparisons(writer, rng, COMPARISONS))
        total, figures = parts.answer_loss(network, batch, guiding.embeddings(network, batch, media))
        wanted = [seeing.pointers(writer, item, ids) for item, ids in zip(shown, batch.ids, strict=True)]
        pointed = pointing.loss(batch, wanted)
        # Mirrored, so that what the projection for speech alone gives would not be understood beside a picture.
        told, _ = guiding.guide_loss(network, [-rows for rows in spoken], [clip.words for clip in clips])
        # Where a shape stands is to be known there by the layer that looks for it, and what is told before a word.
        labels = torch.cat([picture.labels for picture in seen])
        shown_at = batch.ids == writer.special["<|image|>"]
        met = pointing.met[shown_at]
        words = labels[:, looking.WORD] > 0
        chained, figures["chained"] = guiding.word_loss(network, before(met[words]), labels[words, looking.BEFORE])
        there = labels[:, looking.SPOT] > 0
        placed = torch.zeros(())
        if there.any():
            guessed = places(met[there])
            placed = nn.functional.cross_entropy(guessed, labels[there, looking.SPOT])
            figures["placed"] = float((guessed.detach().argmax(-1) == labels[there, looking.SPOT]).float().mean())
        # Of writing, the line is to be known where a word stands, and where the next one is looked for.
        held = torch.zeros_like(batch.ids).masked_scatter(shown_at, labels[:, looking.LINE])
        sought = [
            (row, asking, line)
            for row, pointers in enumerate(wanted)
            for asking, line in seeing.lines(writer, batch.ids[row], held[row], pointers)
        ]
        lined, figures["sought"] = _line_loss(lines, pointing.met, held, sought)
        figures |= {"guided": right, "compared": practised["exact"], "pointed": float(pointed.detach())}
        total = total + guide + compared + 0.3 * (told + pointed + placed + chained + lined)
        return total, figures

    return loop.Stage(named, batches, loss, steps, 8e-4, settings.state(), settings.minutes)


def _line_loss(
    head: nn.Module, met: Tensor, held: Tensor, sought: Sequence[tuple[int, int, int]]
) -> tuple[Tensor, float]:
    """Cross-entropies of the lines of a page, read from hidden states, (rows, tokens, width).

    Of those `held` where words stand, (rows, tokens), 0 for none, and of those `sought`: row, token and line; the
    second value is the share of the latter that is right.
    """
    if not sought:
        return torch.zeros(()), 1.0
    rows, asking, numbers = torch.tensor(sought).T
    guessed, standing = head(met[rows, asking]), held > 0
    right = float((guessed.detach().argmax(-1) == numbers).float().mean())
    loss = nn.functional.cross_entropy(guessed, numbers)
    return loss + nn.functional.cross_entropy(head(met[standing]), held[standing]), right
