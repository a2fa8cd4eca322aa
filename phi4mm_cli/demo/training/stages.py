"""The stages of the demo's training: which parameters each trains, on what, from what."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.demo.training import answering, architecture, hearing, looking, loop, seeing
from phi4mm_cli.demo.training.examples import IGNORED, Batch, Encoder, text_batches
from phi4mm_cli.demo.training.pool import Pool
from phi4mm_cli.model import vision
from phi4mm_cli.model.encoder import encode

TOWER_FROM = 0.7  # of the steps of `see`


@dataclass(frozen=True, slots=True)
class Settings:
    """What the command line says."""

    stage: str
    folder: Path
    workers: int
    minutes: float
    steps: int | None
    port: int

    def state(self, stage: str | None = None) -> Path:
        """The state file of a stage."""
        return self.folder / f"{stage or self.stage}.safetensors"

    def begin_from(self, stage: str, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put what another stage has trained into the parameters. Raises FileNotFoundError where it has not run."""
        if not self.state(stage).exists():
            raise FileNotFoundError(f"{self.state(stage)}: run the stage {stage} first")
        loop.load_state(self.state(stage), parameters)


def work(rank: int, settings: Settings) -> None:
    """One process of a stage."""
    loop.start(rank, settings.workers, settings.port)
    stage = STAGES[settings.stage](rank, settings)
    finished = loop.run(stage)
    if rank == 0:
        print("done" if finished else "to be continued", flush=True)


def answer_loss(
    network: Phi4MultimodalForCausalLM, batch: Batch, embeddings: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The mean negative log-likelihood of the targets; with the share of rows whose every target is the likeliest."""
    inputs = network.model.embed_tokens(batch.ids) if embeddings is None else embeddings
    hidden = network.model(inputs_embeds=inputs, position_ids=batch.positions, use_cache=False).last_hidden_state
    wanted = batch.targets[:, 1:] != IGNORED
    logits = network.lm_head(hidden[:, :-1][wanted])
    targets = batch.targets[:, 1:][wanted]
    loss = nn.functional.cross_entropy(logits, targets)
    wrong = torch.zeros(len(batch.ids))
    rows = wanted.nonzero()[:, 0]
    wrong.index_add_(0, rows, (logits.detach().argmax(-1) != targets).float())
    return loss, {"loss": float(loss.detach()), "exact": float((wrong == 0).float().mean())}


def tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of the work folder, built where there is none."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        architecture.build_tokenizer().save(str(path))
    return Tokenizer.from_file(str(path))


def vocabulary(tokens: Tokenizer) -> int:
    """Rows of the embedding: the tokens, rounded up."""
    return -(-tokens.get_vocab_size() // 64) * 64


def decoder(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the base model: all that text needs, without any adapter's."""
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if "embed_tokens_extend" not in name and "lora_" not in name and "lm_head" not in name
    }


def base(rank: int, settings: Settings) -> loop.Stage:
    """The decoder alone, on conversations in writing."""
    return _written(rank, settings, learning_rate=3e-3, far_share=0.0)


def far(rank: int, settings: Settings) -> loop.Stage:
    """The decoder alone, on as many conversations of more than 4,096 tokens as there are batches of short ones."""
    return _written(rank, settings, learning_rate=2e-3, far_share=1.0, begin="base")


def _written(
    rank: int, settings: Settings, learning_rate: float, far_share: float, begin: str | None = None
) -> loop.Stage:
    tokens = tokenizer(settings.folder)
    network = architecture.new_network(vocabulary(tokens))
    done = loop.resumed(settings.state())
    if begin is not None and not done:
        settings.begin_from(begin, decoder(network))
    batches = text_batches(Encoder(tokens), 1000 * done + rank, 4000, 0.2, architecture.SWITCH, far_share)
    return loop.Stage(
        parameters=decoder(network),
        batches=batches,
        loss=lambda batch: answer_loss(network, batch),
        steps=settings.steps or 4000,
        learning_rate=learning_rate,
        state=settings.state(),
        minutes=settings.minutes,
    )


def listen(rank: int, settings: Settings) -> loop.Stage:
    """The audio encoder alone."""
    tokens = tokenizer(settings.folder)
    network = architecture.new_network(vocabulary(tokens))
    encoder = network.model.embed_tokens_extend.audio_embed.encoder
    pool = Pool(settings.folder / "pool")
    hearing.set_moments(encoder, pool)
    heads = hearing.Heads(architecture.ENCODER, len(pool.sound_names), vocabulary(tokens))
    steps, done = settings.steps or 4000, loop.resumed(settings.state())
    batches = hearing.batches(
        settings.folder / "pool", Encoder(tokens), 1000 * done + rank, done / steps, 1 / steps, 60.0
    )
    named = {f"encoder.{name}": parameter for name, parameter in encoder.named_parameters()}
    named |= {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
    return loop.Stage(
        parameters=named,
        batches=batches,
        loss=lambda batch: hearing.loss(encoder, heads, batch),
        steps=steps,
        learning_rate=2e-3,
        state=settings.state(),
        minutes=settings.minutes,
    )


def look(rank: int, settings: Settings) -> loop.Stage:
    """The vision tower alone."""
    tokens = tokenizer(settings.folder)
    writer = Encoder(tokens)
    module = architecture.new_network(vocabulary(tokens)).model.embed_tokens_extend.image_embed
    heads = looking.Heads(architecture.VISION, vocabulary(tokens))
    named = {f"tower.{name}": parameter for name, parameter in tower(module).items()}
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


def tower(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the image embedding that are used before its projection."""
    unused = (f"encoder.layers.{architecture.VISION_LAYERS - 1}.", "post_layernorm", "img_processor.head")
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if "img_projection" not in name and not any(part in name for part in unused)
    }


def _with_adapter(settings: Settings, name: str) -> tuple[Encoder, Phi4MultimodalForCausalLM, Pool]:
    """What writes examples, the network with a new adapter on the trained base, and the pool; all weights frozen."""
    tokens = tokenizer(settings.folder)
    network = architecture.new_network(vocabulary(tokens))
    settings.begin_from("far", decoder(network))
    architecture.add_adapter(network, name)
    network.requires_grad_(False)
    pool = Pool(settings.folder / "pool")
    hearing.set_moments(network.model.embed_tokens_extend.audio_embed.encoder, pool)
    return Encoder(tokens), network, pool


def _thawed(network: nn.Module, named: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The named parameters and the adapter's, to be trained."""
    named = named | {name: parameter for name, parameter in network.named_parameters() if ".lora_" in name}
    for parameter in named.values():
        parameter.requires_grad_(True)
    return named


def speech(rank: int, settings: Settings) -> loop.Stage:
    """The speech adapter, the audio encoder and its projection, on a base model that stays as it is."""
    writer, network, pool = _with_adapter(settings, "speech")
    module = network.model.embed_tokens_extend.audio_embed
    heads = hearing.Heads(architecture.ENCODER, len(pool.sound_names), vocabulary(writer.tokenizer))
    named = {f"encoder.{name}": parameter for name, parameter in module.encoder.named_parameters()}
    named |= {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
    if not settings.state().exists():
        settings.begin_from("listen", named)
    named |= {f"projection.{n}": p for n, p in module.named_parameters() if "_for_speech" in n}
    named = _thawed(network, named)
    steps, done = settings.steps or 5000, loop.resumed(settings.state())
    batches = answering.batches(
        pool, writer, 1000 * done + rank, done / steps, 1 / steps, 60.0, 0.2, architecture.SWITCH
    )

    pointing = answering.Pointing(network)

    def loss(drawn: tuple[list[answering.Heard], Batch]) -> tuple[Tensor, dict[str, float]]:
        clips, batch = drawn
        encoded = encode(module.encoder, [clip.features for clip in clips])
        labelled = [(rows, clip.labels) for rows, clip in zip(encoded, clips, strict=True) if clip.labels]
        audio = [module.down_proj_for_speech(nn.functional.gelu(module.up_proj_for_speech(rows))) for rows in encoded]
        inputs = answering.embeddings(network, batch, {writer.special["<|audio|>"]: audio})
        total, figures = answer_loss(network, batch, inputs)
        spoken = [(rows, clip.labels.words) for rows, clip in zip(audio, clips, strict=True) if clip.labels]
        guide, right = answering.guide_loss(network, [rows for rows, _ in spoken], [words for _, words in spoken])
        wanted = [answering.pointers(writer, clip, ids) for clip, ids in zip(clips, batch.ids, strict=True)]
        pointed = pointing.loss(batch, wanted)
        total, figures = total + 0.3 * guide + 0.1 * pointed, figures | {"pointed": float(pointed.detach())}
        if labelled:
            heard, seen = heads.loss([rows for rows, _ in labelled], [labels for _, labels in labelled])
            total, figures = total + 0.2 * heard, figures | {"sounds": seen["sounds"], "guided": right}
        return total, figures

    return loop.Stage(named, batches, loss, steps, 8e-4, settings.state(), settings.minutes)


def project(rank: int, settings: Settings) -> loop.Stage:
    """The projection of pictures alone: it learns to put words where the base model has them."""
    tokens = tokenizer(settings.folder)
    network = architecture.new_network(vocabulary(tokens))
    settings.begin_from("far", decoder(network))
    image = network.model.embed_tokens_extend.image_embed
    settings.begin_from("look", {f"tower.{name}": parameter for name, parameter in tower(image).items()})
    network.requires_grad_(False)
    named = _projection(image)
    for parameter in named.values():
        parameter.requires_grad_(True)

    def loss(batch: list[looking.Seen] | list[looking.Strip]) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            features = looking.encoded(image, batch)
        words = looking.labels(batch)[:, looking.WORD]
        guide, right = answering.guide_loss(network, [_projected(image, features)], [words], 0.03)
        return guide, {"guide": float(guide.detach()), "guided": right}

    batches = looking.batches(Encoder(tokens), 1000 * loop.resumed(settings.state()) + rank, 6)
    return loop.Stage(named, batches, loss, settings.steps or 1000, 2e-3, settings.state(), settings.minutes)


def _projection(image: nn.Module) -> dict[str, nn.Parameter]:
    return {f"image_projection.{name}": p for name, p in image.named_parameters() if "img_projection" in name}


def _projected(image: Any, features: Tensor) -> Tensor:
    projected: Tensor = image.img_projection_down(nn.functional.gelu(image.img_projection_up(features)))
    return projected


def see(rank: int, settings: Settings) -> loop.Stage:
    """The vision adapter and the projections, on a base model and an audio encoder that stay as they are.

    The tower, which takes most of the time, learns in the later part only.
    """
    writer, network, pool = _with_adapter(settings, "vision")
    audio, image = network.model.embed_tokens_extend.audio_embed, network.model.embed_tokens_extend.image_embed
    settings.begin_from("speech", {f"encoder.{n}": p for n, p in audio.encoder.named_parameters()})
    heads = looking.Heads(architecture.VISION, vocabulary(writer.tokenizer))
    named = {f"tower.{name}": parameter for name, parameter in tower(image).items()}
    named |= {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
    projection = _projection(image)
    if not settings.state().exists():
        settings.begin_from("look", named)
        settings.begin_from("project", projection)
        # It writes down the words that it finds in media, in their order, and answers questions: so will this one.
        architecture.begin_adapter(network, "vision", "speech", load_file(settings.state("speech")))
    named |= projection
    named |= {f"audio_projection.{n}": p for n, p in audio.named_parameters() if "_for_vision_speech" in n}
    named = _thawed(network, named)
    steps, done = settings.steps or 5000, loop.resumed(settings.state())
    batches = seeing.batches(pool, writer, 1000 * done + rank, done / steps, 1 / steps, 7, 0.2, architecture.SWITCH)
    pointing = answering.Pointing(network)
    numbers = itertools.count(done)

    def loss(drawn: tuple[list[seeing.Shown], Batch]) -> tuple[Tensor, dict[str, float]]:
        shown, batch = drawn
        seen = [picture for item in shown for picture in item.seen]
        thawed = next(numbers) >= TOWER_FROM * steps
        with torch.set_grad_enabled(thawed):
            features = vision.encode(image, [picture.crops for picture in seen])
        embedded = [_projected(image, rows) for rows in features]
        guide, right = answering.guide_loss(network, embedded, [picture.words for picture in seen], 0.03)
        clips = [item.clip for item in shown if item.clip is not None]
        with torch.no_grad():
            heard = encode(audio.encoder, [clip.features for clip in clips]) if clips else []
        spoken = [
            audio.down_proj_for_vision_speech(nn.functional.gelu(audio.up_proj_for_vision_speech(rows)))
            for rows in heard
        ]
        media = {writer.special["<|image|>"]: embedded, writer.special["<|audio|>"]: spoken}
        total, figures = answer_loss(network, batch, answering.embeddings(network, batch, media))
        wanted = [seeing.pointers(writer, item, ids) for item, ids in zip(shown, batch.ids, strict=True)]
        pointed = pointing.loss(batch, wanted)
        # Mirrored, so that what the projection for speech alone gives would not be understood beside a picture.
        told, _ = answering.guide_loss(network, [-rows for rows in spoken], [clip.words for clip in clips])
        figures |= {"guided": right, "pointed": float(pointed.detach())}
        total = total + guide + 0.3 * (told + pointed)
        if thawed:
            apart, seen_right = heads.loss(torch.cat(features), torch.cat([picture.labels for picture in seen]))
            total, figures = total + 0.1 * apart, figures | {"letters": seen_right.get("letters", 0.0)}
        return total, figures

    return loop.Stage(named, batches, loss, steps, 8e-4, settings.state(), settings.minutes)


STAGES: dict[str, Callable[[int, Settings], loop.Stage]] = {
    "base": base,
    "far": far,
    "listen": listen,
    "look": look,
    "project": project,
    "see": see,
    "speech": speech,
}
