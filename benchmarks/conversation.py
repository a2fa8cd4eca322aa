"""Time to the first words of each turn of a conversation, with what is kept between its turns and without.

    python benchmarks/conversation.py [--model demo] [--no-picture] [--rounds 5] [--device cpu] [--dtype float32]

A conversation about a picture and a recording: with the same engine, every turn is asked twice, once as it comes and
once after everything that was kept has been dropped. The rounds are conversations of their own. Without --model it is a
random checkpoint of the tests' shapes with both adapters, whose words mean nothing; the demo takes no pictures.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from tiny_model import write_adapter, write_tiny_model

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.media import audio
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.schema import Clip, Message, Part, Picture, Request, Result, Sampling

SIZE = (1024, 768)  # pixels of the picture: 1681 tokens
SECONDS = 15.0  # of the recording
BUDGET = 20  # tokens of an answer


def turns(folder: Path, picture: bool) -> dict[str, tuple[Part, ...]]:
    """What is said in each turn, by a name for it."""
    path = folder / "picture.png"
    Image.effect_noise(SIZE, 60).convert("RGB").save(path)
    clip = Clip(audio.source(SAMPLES / "meeting.flac"), 0.0, SECONDS)
    seen = {"a picture": (Picture(audio.source(path)), "What is on the picture?"), "a question": ("Which is larger?",)}
    heard = {
        "a recording": (clip, "Transcribe the audio clip into text."),
        "another question": ("Who said that?",),
        "one more": ("And when?",),
    }
    return {**(seen if picture else {}), **heard}


def answer(engine: LocalEngine, request: Request) -> tuple[float, Result]:
    """Seconds until there is something to be read, and the whole answer."""
    began, first = time.perf_counter(), None
    with closing(engine.stream(request)) as pieces:
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                return first or time.perf_counter() - began, end.value
            first = first or time.perf_counter() - began


def converse(engine: LocalEngine, said: dict[str, tuple[Part, ...]]) -> dict[str, tuple[int, float, float]]:
    """Of each turn the tokens of its prompt, and the seconds with what is kept and without. The answers are equal."""
    found, messages = {}, ()
    engine._forget()
    for name, parts in said.items():
        request = Request((*messages, Message("user", parts)), Sampling(BUDGET))
        kept, result = answer(engine, request)
        engine._forget()
        without, fresh = answer(engine, request)
        if fresh != result:
            print(f"{name}: the answers differ: {result.text!r}, {fresh.text!r}", file=sys.stderr)
        found[name] = (result.prompt_tokens, kept, without)
        messages = (*request.messages, Message("assistant", (result.reply,)))
    return found


def main() -> None:
    """A line for each turn: medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--picture", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(
        f"python {' '.join(sys.argv)}\n{platform.machine()}, {os.cpu_count()} cores, {chosen.threads} threads, ", end=""
    )
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if chosen.model is None:
            write_tiny_model(folder / "tiny")
            for name in ("speech", "vision"):
                write_adapter(folder / "tiny", name=name)
        said = turns(folder, chosen.picture)
        with LocalEngine(resolve(chosen.model or str(folder / "tiny")), chosen.device, chosen.dtype) as engine:
            converse(engine, said)  # loads the model
            rounds = [converse(engine, said) for _ in range(chosen.rounds)]
    print("\n                             prompt      milliseconds to the first words")
    print("turn                         tokens      kept   nothing kept    ratio")
    for number, name in enumerate(said, 1):
        tokens = rounds[0][name][0]
        kept, without = (1000 * median(one[name][place] for one in rounds) for place in (1, 2))
        print(f"{number}  {name:24}  {tokens:7}  {kept:8.0f}  {without:13.0f}  {without / kept:7.1f}")


if __name__ == "__main__":
    main()
