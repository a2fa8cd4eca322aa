"""The training loop: chosen parameters, several one-thread processes that average gradients, and a small state file.

It knows nothing of what is trained: a stage gives it parameters, batches and a loss.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from phi4mm_cli.demo.training.muon import Muon

CLIP = 1.0  # largest norm of the gradient
WARMUP = 100  # steps, after a resumption too, for the moments of the optimizers begin anew
DECAY = 0.25  # the last part of the steps, in which the learning rate falls to nothing


@dataclass(frozen=True, slots=True)
class Stage:
    """What to train, on what, and for how long."""

    parameters: Mapping[str, nn.Parameter]
    batches: Iterator[Any]
    loss: Callable[[Any], tuple[Tensor, dict[str, float]]]  # with figures to report
    steps: int
    learning_rate: float
    state: Path
    minutes: float  # of this run: the state is saved then, and the next run goes on from it


def run(stage: Stage, save_every: float = 300.0) -> bool:
    """Train to the end of the stage, or of its minutes; whether the stage is done."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    done = load_state(stage.state, stage.parameters)
    optimizers = _optimizers(stage)
    begin = saved = time.monotonic()
    bar = tqdm(total=stage.steps, initial=done, disable=rank != 0, mininterval=30, maxinterval=60)
    figures: dict[str, float] = {}
    for step in range(done, stage.steps):
        rate = _rate(step, done, stage)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
        loss, seen = stage.loss(next(stage.batches))
        loss.backward()  # type: ignore[no-untyped-call]
        _average(stage.parameters, world)
        nn.utils.clip_grad_norm_(stage.parameters.values(), CLIP)
        for optimizer in optimizers:
            optimizer.step()
        for name, value in seen.items():
            figures[name] = value if name not in figures else 0.98 * figures[name] + 0.02 * value
        bar.set_postfix({name: f"{value:.3f}" for name, value in figures.items()}, refresh=False)
        bar.update()
        now = time.monotonic()
        over = _agree(now - begin > stage.minutes * 60, world) if step % 10 == 0 else False
        if rank == 0 and (over or now - saved > save_every):
            save_state(stage.state, stage.parameters, step + 1)
            saved = now
        if over:
            return False
    if rank == 0:
        save_state(stage.state, stage.parameters, stage.steps)
    return True


def _rate(step: int, begin: int, stage: Stage) -> float:
    warm = min(1.0, (step - begin + 1) / WARMUP)
    left = (stage.steps - step) / (DECAY * stage.steps)
    return stage.learning_rate * min(warm, 1.0, left)


def _optimizers(stage: Stage) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of layers and adapters, AdamW for the rest: embeddings, convolutions, norms."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in stage.parameters.items():
        whole = parameter.dim() == 2 and "embed_tokens.weight" not in name
        (matrices if whole and "head" not in name and "bias_values" not in name else others).append(parameter)
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, lr=1e-3))
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01))
    return optimizers


def _average(parameters: Mapping[str, nn.Parameter], world: int) -> None:
    """The mean of the processes' gradients, in one message. What no process has a gradient for stays as it is."""
    if world == 1:
        return
    wanted = list(parameters.values())
    known = torch.tensor([float(p.grad is not None) for p in wanted])
    flat = torch.cat([known, *((torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in wanted)])
    dist.all_reduce(flat)
    flat /= world
    at = len(wanted)
    for parameter, somewhere in zip(wanted, flat[:at].tolist(), strict=True):
        parameter.grad = flat[at : at + parameter.numel()].view_as(parameter) if somewhere else None
        at += parameter.numel()


def _agree(over: bool, world: int) -> bool:
    if world == 1:
        return over
    flag = torch.tensor([float(over)])
    dist.all_reduce(flag)
    return bool(flag.item() > 0)


# ------------------------------------------------------------------------------------------------ the state


def save_state(path: Path, parameters: Mapping[str, nn.Parameter], step: int) -> None:
    """Write the trained weights in bfloat16, which keeps the file small, and the step; moments are not kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: parameter.detach().to(torch.bfloat16).contiguous() for name, parameter in parameters.items()}
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"step": str(step)})
    temporary.replace(path)


def load_state(path: Path, parameters: Mapping[str, nn.Parameter]) -> int:
    """Put saved weights into the parameters; the step they were saved at, 0 where nothing was saved."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file, torch.no_grad():
        missing = parameters.keys() - set(file.keys())
        if missing:
            raise ValueError(f"{path} lacks {sorted(missing)[0]} and {len(missing) - 1} more")
        for name, parameter in parameters.items():
            parameter.copy_(file.get_tensor(name))
        return int(file.metadata()["step"])


def start(rank: int, world: int, port: int) -> None:
    """Join the processes that train together."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    if world > 1:
        dist.init_process_group("gloo", rank=rank, world_size=world)


def resumed(path: Path) -> int:
    """The step that a state file was saved at; 0 without one."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])
