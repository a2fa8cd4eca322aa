"""What the stages are made of: their settings, the network with what is trained of it, and the loss of answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Phi4MultimodalForCausalLM

from phi4mm_cli.demo.training import architecture, hearing, loop
from phi4mm_cli.demo.training.examples import IGNORED, Batch, Encoder
from phi4mm_cli.demo.training.pool import Pool


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


def tower(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of the image embedding that are used before its projection."""
    unused = (f"encoder.layers.{architecture.VISION_LAYERS - 1}.", "post_layernorm", "img_processor.head")
    return {
        name: parameter
        for name, parameter in module.named_parameters()
        if "img_projection" not in name and not any(part in name for part in unused)
    }


def with_adapter(settings: Settings, name: str) -> tuple[Encoder, Phi4MultimodalForCausalLM, Pool]:
    """What writes examples, the network with a new adapter on the trained base, and the pool; all weights frozen."""
    tokens = tokenizer(settings.folder)
    network = architecture.new_network(vocabulary(tokens))
    settings.begin_from("far", decoder(network))
    architecture.add_adapter(network, name)
    network.requires_grad_(False)
    pool = Pool(settings.folder / "pool")
    hearing.set_moments(network.model.embed_tokens_extend.audio_embed.encoder, pool)
    return Encoder(tokens), network, pool


def thawed(network: nn.Module, named: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The named parameters and the adapter's, to be trained."""
    named = named | {name: parameter for name, parameter in network.named_parameters() if ".lora_" in name}
    for parameter in named.values():
        parameter.requires_grad_(True)
    return named


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
