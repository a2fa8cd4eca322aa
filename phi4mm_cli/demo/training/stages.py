"""The stages of the demo's training: which parameters each trains, on what, from what."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from phi4mm_cli.demo.training import answering, architecture, guiding, hearing, loop, parts, seeing_stages
from phi4mm_cli.demo.training.examples import Batch, Encoder, text_batches
from phi4mm_cli.demo.training.parts import Settings
from phi4mm_cli.demo.training.pool import Pool
from phi4mm_cli.model.encoder import encode


def work(rank: int, settings: Settings) -> None:
    """One process of a stage."""
    loop.start(rank, settings.workers, settings.port)
    stage = STAGES[settings.stage](rank, settings)
    finished = loop.run(stage)
    if rank == 0:
        print("done" if finished else "to be continued", flush=True)


def base(rank: int, settings: Settings) -> loop.Stage:
    """The decoder alone, on conversations in writing."""
    return _written(rank, settings, learning_rate=3e-3, far_share=0.0)


def far(rank: int, settings: Settings) -> loop.Stage:
    """The decoder alone, on as many conversations of more than 4,096 tokens as there are batches of short ones."""
    return _written(rank, settings, learning_rate=2e-3, far_share=1.0, begin="base")


def _written(
    rank: int, settings: Settings, learning_rate: float, far_share: float, begin: str | None = None
) -> loop.Stage:
    tokens = parts.tokenizer(settings.folder)
    network = architecture.new_network(parts.vocabulary(tokens))
    done = loop.resumed(settings.state())
    if begin is not None and not done:
        settings.begin_from(begin, parts.decoder(network))
    batches = text_batches(Encoder(tokens), 1000 * done + rank, 4000, 0.2, architecture.SWITCH, far_share)
    return loop.Stage(
        parameters=parts.decoder(network),
        batches=batches,
        loss=lambda batch: parts.answer_loss(network, batch),
        steps=settings.steps or 4000,
        learning_rate=learning_rate,
        state=settings.state(),
        minutes=settings.minutes,
    )


def listen(rank: int, settings: Settings) -> loop.Stage:
    """The audio encoder alone."""
    tokens = parts.tokenizer(settings.folder)
    network = architecture.new_network(parts.vocabulary(tokens))
    encoder = network.model.embed_tokens_extend.audio_embed.encoder
    pool = Pool(settings.folder / "pool")
    hearing.set_moments(encoder, pool)
    heads = hearing.Heads(architecture.ENCODER, len(pool.sound_names), parts.vocabulary(tokens))
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


def speech(rank: int, settings: Settings) -> loop.Stage:
    """The speech adapter, the audio encoder and its projection, on a base model that stays as it is."""
    writer, network, pool = parts.with_adapter(settings, "speech")
    module = network.model.embed_tokens_extend.audio_embed
    heads = hearing.Heads(architecture.ENCODER, len(pool.sound_names), parts.vocabulary(writer.tokenizer))
    named = {f"encoder.{name}": parameter for name, parameter in module.encoder.named_parameters()}
    named |= {f"heads.{name}": parameter for name, parameter in heads.named_parameters()}
    if not settings.state().exists():
        settings.begin_from("listen", named)
    named |= {f"projection.{n}": p for n, p in module.named_parameters() if "_for_speech" in n}
    named = parts.thawed(network, named)
    steps, done = settings.steps or 5000, loop.resumed(settings.state())
    batches = answering.batches(
        pool, writer, 1000 * done + rank, done / steps, 1 / steps, 60.0, 0.2, architecture.SWITCH
    )

    pointing = guiding.Pointing(network)

    def loss(drawn: tuple[list[answering.Heard], Batch]) -> tuple[Tensor, dict[str, float]]:
        clips, batch = drawn
        encoded = encode(module.encoder, [clip.features for clip in clips])
        labelled = [(rows, clip.labels) for rows, clip in zip(encoded, clips, strict=True) if clip.labels]
        audio = [module.down_proj_for_speech(nn.functional.gelu(module.up_proj_for_speech(rows))) for rows in encoded]
        inputs = guiding.embeddings(network, batch, {writer.special["<|audio|>"]: audio})
        total, figures = parts.answer_loss(network, batch, inputs)
        spoken = [(rows, clip.labels.words) for rows, clip in zip(audio, clips, strict=True) if clip.labels]
        guide, right = guiding.guide_loss(network, [rows for rows, _ in spoken], [words for _, words in spoken])
        wanted = [answering.pointers(writer, clip, ids) for clip, ids in zip(clips, batch.ids, strict=True)]
        pointed = pointing.loss(batch, wanted)
        total, figures = total + 0.3 * guide + 0.1 * pointed, figures | {"pointed": float(pointed.detach())}
        if labelled:
            heard, seen = heads.loss([rows for rows, _ in labelled], [labels for _, labels in labelled])
            total, figures = total + 0.2 * heard, figures | {"sounds": seen["sounds"], "guided": right}
        return total, figures

    return loop.Stage(named, batches, loss, steps, 8e-4, settings.state(), settings.minutes)


STAGES: dict[str, Callable[[int, Settings], loop.Stage]] = {
    "base": base,
    "far": far,
    "listen": listen,
    "look": seeing_stages.look,
    "project": seeing_stages.project,
    "see": seeing_stages.see,
    "speech": speech,
}
