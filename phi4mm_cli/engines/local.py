"""The engine on this machine: batches requests by kind and length, and runs the model through torch.

torch and transformers are imported, and the weights loaded, when the first answer is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from phi4mm_cli import cancel
from phi4mm_cli.closing import Closing
from phi4mm_cli.engines import Listener, Silence
from phi4mm_cli.engines.devices import device_names
from phi4mm_cli.engines.failing import foreseen, unforeseen
from phi4mm_cli.engines.importing import import_quickly
from phi4mm_cli.engines.media import read_each
from phi4mm_cli.engines.queue import Waiting
from phi4mm_cli.errors import DeviceLostError, MemoryExhaustedError, Phi4Error, RequestError, UsageError
from phi4mm_cli.model.checkpoint import Checkpoint
from phi4mm_cli.prompt import render
from phi4mm_cli.schema import Clip, ModelInfo, Picture, Profile, Request, Result

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from phi4mm_cli.model.composing import Prompt
    from phi4mm_cli.model.encoding import Medium
    from phi4mm_cli.model.kept import Kept
    from phi4mm_cli.model.loading import Model

Outcome = Result | RequestError

CPU_BATCH = 16
MOST_GPU_ROWS = 128
KERNELS_KEPT = 32  # by oneDNN, each for one length of input: its own 1,024 are half a gigabyte after hours of clips
BATCHES_IN_HAND = 4  # enough requests to choose neighbours in length from


class LocalEngine(Closing):
    """Runs a checkpoint on this machine's GPU or CPU. `poll` works in the caller's thread, one batch at a time.

    `batch_size` None lets the device decide. A batch that does not fit into memory is halved, and later ones are as
    small. Entering is free; leaving frees the model.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        dtype: str = "auto",
        batch_size: int | None = None,
        listener: Listener | None = None,
        attention: str = "auto",
        quantize: str | None = None,
        split: bool = False,
    ) -> None:
        if split and quantize is not None:
            raise UsageError("--device-map and --quantize do not go together", "Leave one of them out")
        if checkpoint.dtype is not None and dtype not in ("auto", checkpoint.dtype):
            raise UsageError(f"{checkpoint.name} runs in {checkpoint.dtype} only", "Leave --dtype out")
        self._checkpoint, self._device, self._dtype = checkpoint, device, dtype
        self._attention, self._quantize, self._split = attention, quantize, split
        self._batch_size = batch_size
        self._listener = listener or Silence()
        self._waiting = Waiting()
        self._model: Model | None = None
        self._place = ""  # where it is
        self._kept: Kept | None = None  # of what was streamed

    @property
    def info(self) -> ModelInfo:
        """The model; how it runs once it is loaded."""
        model, own = self._model, self._checkpoint
        return ModelInfo(
            id=own.name,
            revision=own.revision,
            engine="local",
            device=self._place if model else None,
            dtype=str(model.network.dtype).removeprefix("torch.") if model else None,
            attention=model.attention if model else None,
            quantize=self._quantize,
            adapters={name: str(path) for name, path in own.adapters} or None,
        )

    @property
    def profile(self) -> Profile:
        """What the checkpoint says of itself."""
        return self._checkpoint.profile

    def count_tokens(self, text: str) -> int:
        """How many tokens `text` is, by the checkpoint's tokenizer. Raises MissingError where that cannot be read."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        from phi4mm_cli.model.tokenizer import read_tokenizer

        return read_tokenizer(self._checkpoint.path)

    @property
    def rows(self) -> int:
        """How many short requests go through the model at once."""
        return self._batch_size or CPU_BATCH

    def room(self) -> int:
        """How many more requests fill the queue to a few batches."""
        return max(0, BATCHES_IN_HAND * self.rows - len(self._waiting))

    def submit(self, request: Request) -> None:
        """Queue a request."""
        self._waiting.add(request)

    def cancel(self, key: str) -> None:
        """Take a request out of the queue."""
        self._waiting.drop(key)

    def poll(self, timeout: float | None = None) -> list[tuple[str, Outcome]]:
        """Run one batch to its end and return its outcomes; [] where nothing is queued.

        The work is done here, so `timeout` cannot cut it short. Raises Phi4Error where the model cannot be loaded.
        """
        if not len(self._waiting):
            return []
        model = self._loaded()
        from phi4mm_cli.model.encoding import read

        outcomes: list[tuple[str, Outcome]] = []
        groups: dict[str, dict[str, Prompt]] = {}
        for request in self._waiting.take(self.rows):
            try:
                prompt, side = _compose(model, request, read)
            except RequestError as error:
                outcomes.append((request.key, error))
            except (Phi4Error, cancel.Cancelled):
                raise
            except Exception as error:  # noqa: BLE001 - a bug met with one request is that request's failure
                outcomes.append((request.key, unforeseen(error, self._listener)))
            else:
                alone = side == "crossing" or request.sampling.num_beams > 1
                groups.setdefault(request.key if alone else side, {})[request.key] = prompt
        for group in groups.values():
            rows = self._batch_size
            answers = self._answer(model, list(group.values()))
            if any(isinstance(answer, MemoryExhaustedError) for answer in answers):
                self._batch_size = rows  # one that does not fit even alone says nothing of the others
            outcomes += zip(group, answers, strict=True)
        return outcomes

    def stream(self, request: Request) -> Generator[str, None, Result]:
        """Answer one request now, yielding its text piece by piece. Raises RequestError.

        Closing it ends the work. Other requests may be answered between its pieces. What was read and written is kept,
        so that the next one reads only what it does not have in common with this one.
        """
        pieces = self._pieces(request)
        first: list[str] = []
        try:
            first.append(next(pieces))
        except StopIteration as end:
            result: Result = end.value
            return result
        except MemoryExhaustedError:
            if not self._forget():
                raise
            pieces = self._pieces(request)
        with closing(pieces):
            yield from first
            return (yield from pieces)

    def _pieces(self, request: Request) -> Generator[str, None, Result]:
        model = self._loaded()
        from phi4mm_cli.model import generate
        from phi4mm_cli.model.kept import Kept

        kept = self._kept = self._kept or Kept()
        prompt, _ = _compose(model, request, kept.medium)
        with foreseen("a single request"), closing(generate.stream(model, prompt, kept)) as answer:
            while True:
                _use_adapter(model, prompt)  # each time: another may have been at work meanwhile
                try:
                    piece = next(answer)
                except StopIteration as end:
                    result: Result = end.value
                    return result
                yield piece

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._kept = None
        self._waiting.clear()

    def _loaded(self) -> Model:
        if self._model is None:
            with foreseen(f"the model {self._checkpoint.name}"), cancel.in_one_piece():
                self._model = self._load()
            cancel.check()
            info = self.info
            numbers = f"{info.dtype} and {info.quantize}" if info.quantize else info.dtype
            kernel, most = f"{info.attention} attention", f"at most {self.rows} clips at once"
            self._listener.detail(f"{info.id} runs on {info.device} in {numbers} with {kernel}, {most}")
        return self._model

    def _load(self) -> Model:
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))
        import_quickly("phi4mm_cli.model.generate")  # and with it all that an answer needs
        from phi4mm_cli.model import memory
        from phi4mm_cli.model.loading import assemble, open_contents
        from phi4mm_cli.model.precision import choose_dtype
        from phi4mm_cli.model.split import split

        own, bits, devices = self._checkpoint, self._quantize, self._devices()
        contents, device = open_contents(own), devices[0]
        dtype = choose_dtype(self._dtype, own, device, lambda dtype: memory.fits(contents, device, dtype, bits))
        if self._dtype == "auto" and (why := memory.why_smaller(contents, device, dtype, bits)):
            self._listener.note(f"the model {own.name} {why}")
        places = split(contents, devices, dtype, memory.free) if self._split else None
        model = assemble(own, contents, device, dtype, self._listener.loaded, self._attention, bits, places)
        if self._batch_size is None:
            rows = memory.rows_that_fit(contents, device, dtype, self.profile.max_chunk_seconds)
            self._batch_size = max(1, min(MOST_GPU_ROWS if device.type == "cuda" else CPU_BATCH, rows))
        self._place = ",".join(map(str, dict.fromkeys([device, *(places or {}).values()])))
        return model

    def _forget(self) -> bool:
        """Make room in memory; False where nothing is kept."""
        return self._kept is not None and self._kept.clear()

    def _devices(self) -> list[torch.device]:
        """Those that the model is on: the first, or all that are named where it is split."""
        import torch

        from phi4mm_cli.model.precision import choose_device

        all_gpus = self._split and self._device == "auto" and torch.cuda.is_available()
        return [choose_device(name) for name in device_names("all" if all_gpus else self._device)]

    def _answer(self, model: Model, prompts: Sequence[Prompt]) -> list[Outcome]:
        """The outcomes of one group of like prompts; of halves of it where the whole cannot be answered."""
        from phi4mm_cli.model import generate

        try:
            with foreseen("a single request"):
                _use_adapter(model, prompts[0])
                return [*generate.generate(model, prompts)]
        except MemoryExhaustedError as error:
            forgotten = self._forget()
            if not forgotten and len(prompts) == 1:
                return [MemoryExhaustedError(error.message, error.advice)]  # without the attempt's frames and tensors
            self._batch_size = self._batch_size if forgotten else len(prompts) // 2
        except (Phi4Error, cancel.Cancelled):
            raise
        except Exception as error:  # noqa: BLE001 - a bug met with one request is that request's failure
            forgotten = False
            if len(prompts) == 1:
                return [unforeseen(error, self._listener)]
        # Here the error is gone, and with it the last references to those tensors.
        if forgotten:
            return self._answer(model, prompts)
        half = len(prompts) // 2
        return self._answer(model, prompts[:half]) + self._answer(model, prompts[half:])


def _compose(model: Model, request: Request, read: Callable[[Clip | Picture], Medium]) -> tuple[Prompt, str]:
    """The prompt, its media read, and its rope side. Raises RequestError where media cannot be read or understood."""
    from phi4mm_cli.model.composing import compose, rope_side

    _require_adapter(model, request)
    try:
        with foreseen("a single request"):
            media = read_each(request, read)
        prompt = compose(model, render(request.messages, request.tools), media, request.sampling)
        prompt = replace(prompt, word_times=request.word_times, key=request.key)
    except (RequestError, DeviceLostError):
        raise
    except Phi4Error as error:
        raise RequestError(error.message, error.advice) from error
    return prompt, rope_side(model, prompt)


def _require_adapter(model: Model, request: Request) -> None:
    from phi4mm_cli.model.composing import adapter_of

    name = adapter_of(request)
    # A checkpoint without any adapter may hear with its own weights, as small ones do.
    if name is None or name in model.adapters or (name == "speech" and not model.adapters):
        return
    media = "pictures" if name == "vision" else "sound"
    message = f"the model cannot take {media}: its folder has no {name}-lora"
    raise RequestError(message, "Name a model that has one with --model")


def _use_adapter(model: Model, prompt: Prompt) -> None:
    if model.adapters:
        from phi4mm_cli.model.adapters import switch_adapter
        from phi4mm_cli.model.composing import adapter_of

        switch_adapter(model.network, adapter_of(prompt))
