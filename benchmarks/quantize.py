"""What --quantize saves and what it costs: memory, and how many greedy tokens and texts stay those of float32.

    python benchmarks/quantize.py [--model demo] [--seconds 4] [--step 0.25] [--threads 1]
    python benchmarks/quantize.py --model FOLDER --dtype bfloat16 --device cuda --recording TALK --seconds 30 --step 30

The same model is loaded whole and quantized, one after the other in one process, and transcribes the same stretches of
a recording, by default of the sample meeting, cut anywhere, so that many begin and end within words: harder than what
is cut in silence. A token counts as equal up to the first one of its answer that is not: what follows was chosen after
another text.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import sys
import time
from importlib.metadata import version
from itertools import takewhile
from pathlib import Path

import torch

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.media import audio
from phi4mm_cli.model import memory
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.folder import in_gb
from phi4mm_cli.model.loading import open_contents
from phi4mm_cli.schema import Clip, Message, Request, Result, Sampling

ASK = "Transcribe the audio clip into text."


def requests(recording: Path, seconds: float, step: float) -> list[Request]:
    """One for each stretch of so many seconds, one beginning a step after the other."""
    length, source = audio.probe(recording).seconds or 0.0, audio.source(recording)
    starts = [step * i for i in range(1 + int(max(0.0, length - seconds) / step))]
    parts = [(Clip(source, start, min(length, start + seconds)), ASK) for start in starts]
    return [Request((Message("user", part),), Sampling(max_new_tokens=16 + round(10 * seconds))) for part in parts]


def answers(engine: LocalEngine, asked: list[Request]) -> dict[str, Result]:
    """By key. Raises what a request raised."""
    for one in asked:
        engine.submit(one)
    found: dict[str, Result] = {}
    while outcomes := engine.poll():
        for key, outcome in outcomes:
            if not isinstance(outcome, Result):
                raise outcome
            found[key] = outcome
    return found


def stored(engine: LocalEngine) -> int:
    """Bytes of all weights, with what belongs to them."""
    network = engine._loaded().network
    tensors = [*network.parameters(), *network.buffers()]
    states = [getattr(getattr(module, "weight", None), "quant_state", None) for module in network.modules()]
    tensors += [scale for state in states if state is not None for scale in (state.absmax, state.state2.absmax)]
    return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def agreement(whole: dict[str, Result], small: dict[str, Result]) -> str:
    """The shares of equal tokens and of equal texts."""
    equal = total = 0
    for key, result in whole.items():
        pairs = zip(result.tokens, small[key].tokens, strict=False)
        equal += len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
        total += len(result.tokens)
    texts = sum(result.text == small[key].text for key, result in whole.items())
    return f"{equal}/{total} = {equal / total:7.2%}   {texts}/{len(whole)} = {texts / len(whole):7.2%}"


def main() -> None:
    """Load, ask, compare; a line for each way of storing weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--recording", type=Path, default=SAMPLES / "meeting.flac")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--step", type=float, default=0.25)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    checkpoint = resolve(asked.model)
    contents = open_contents(checkpoint)
    print(
        f"python {' '.join(sys.argv)}\n{platform.machine()}, {os.cpu_count()} cores, {asked.threads} threads, ", end=""
    )
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "bitsandbytes")))
    print("\n            weights  with a request (forecast)  seconds  equal tokens          equal texts")
    clips = requests(asked.recording, asked.seconds, asked.step)
    whole: dict[str, Result] = {}
    for kind in (None, "int8", "int4"):
        with LocalEngine(checkpoint, asked.device, asked.dtype, quantize=kind) as engine:
            model = engine._loaded()
            began = time.perf_counter()
            found = answers(engine, clips)
            seconds = time.perf_counter() - began
            whole = whole or found
            forecast = in_gb(memory.needed(contents, model.network.dtype, kind))
            print(f"{kind or asked.dtype:9} {in_gb(stored(engine)):>9} {forecast:>12} {seconds:22.1f}  ", end="")
            print(agreement(whole, found), flush=True)
        del model
        gc.collect()


if __name__ == "__main__":
    main()
