"""Seconds of audio a second: `phi4mm transcribe FOLDER` beside the model card's loop, on the same weights and clips.

    python benchmarks/throughput.py [--files 64] [--model demo] [--rounds 3] [--threads 4]

The clips are the sentences of the sample meeting, as many files as asked for. The card's loop takes one file at a time
through transformers' processor and `generate`. Both are timed as whole processes, start and loading included, and
again without what a run over a single file takes. They take turns; medians are printed, with how far the words agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import jiwer
import soundfile

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.model.checkpoint import resolve

CARD_LOOP = """
import sys
from pathlib import Path
import soundfile, torch
from transformers import AutoProcessor, Phi4MultimodalForCausalLM

model_path, folder, out = sys.argv[1:]
processor = AutoProcessor.from_pretrained(model_path)
device = "cuda" if torch.cuda.is_available() else "cpu"
dtype = torch.bfloat16 if device == "cuda" else torch.float32
model = Phi4MultimodalForCausalLM.from_pretrained(model_path, dtype=dtype).to(device)
prompt = "<|user|><|audio|>Transcribe the audio clip into text.<|end|><|assistant|>"
for path in sorted(Path(folder).iterdir()):
    audio, rate = soundfile.read(path, dtype="float32")
    inputs = processor(text=prompt, audio=audio, sampling_rate=rate, return_tensors="pt").to(device)
    with torch.inference_mode():
        tokens = model.generate(**inputs, max_new_tokens=128)
    text = processor.tokenizer.decode(tokens[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
    Path(out, path.stem + ".txt").write_text(text, encoding="utf-8")
"""


def make_clips(folder: Path, files: int) -> tuple[float, list[str]]:
    """`files` clips of one sentence each; the seconds of sound in all of them, and what is said in each."""
    samples, rate = soundfile.read(SAMPLES / "meeting.flac", dtype="float32")
    sentences = json.loads((SAMPLES / "meeting.reference.json").read_text(encoding="utf-8"))["sentences"]
    seconds, texts = 0.0, []
    for i in range(files):
        sentence = sentences[i % len(sentences)]
        first, last = max(0.0, sentence["start"] - 0.15), sentence["end"] + 0.15
        clip = samples[round(first * rate) : round(last * rate)]
        soundfile.write(folder / f"{i:05}.flac", clip, rate)
        seconds += len(clip) / rate
        texts.append(sentence["text"])
    return seconds, texts


def timed(command: list[str], threads: int) -> float:
    """Wall-clock seconds of a process."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def word_error_rate(folder: Path, texts: list[str]) -> float:
    """Of the texts in `folder`, in the order of their names."""
    found = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.txt"))]
    return jiwer.wer([_plain(text) for text in texts], [_plain(text) for text in found])


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w' ]", " ", text.lower()).split())


def main() -> None:
    """Run both, in turn, and print what they took."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=64)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    model = str(resolve(asked.model).path)
    with tempfile.TemporaryDirectory() as scratch:
        many, one, ours_out, card_out = (Path(scratch, name) for name in ("many", "one", "ours", "card"))
        for folder in (many, one, ours_out, card_out):
            folder.mkdir()
        seconds, texts = make_clips(many, asked.files)
        make_clips(one, 1)
        ours = [sys.executable, "-m", "phi4mm_cli", "transcribe", "-m", asked.model, "-o", str(ours_out)]
        card = [sys.executable, "-c", CARD_LOOP, model]
        took: dict[str, list[float]] = {"ours": [], "ours, one": [], "card": [], "card, one": []}
        for _ in range(asked.rounds):
            took["ours, one"].append(timed([*ours, str(one)], asked.threads))
            took["card, one"].append(timed([*card, str(one), str(card_out)], asked.threads))
            took["ours"].append(timed([*ours, str(many)], asked.threads))
            took["card"].append(timed([*card, str(many), str(card_out)], asked.threads))
        median = {name: statistics.median(times) for name, times in took.items()}
        print(f"{platform.machine()}, {asked.threads} threads, Python {platform.python_version()}, ", end="")
        print(", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")))
        print(f"{asked.files} files, {seconds:.0f} s of audio, model {asked.model}, {asked.rounds} rounds\n")
        print("                          whole process        without start and loading     words wrong")
        for name, folder in (("ours", ours_out), ("card", card_out)):
            label = {"ours": "phi4mm transcribe", "card": "model card's loop"}[name]
            whole, rest = median[name], max(1e-3, median[name] - median[f"{name}, one"])
            wrong = word_error_rate(folder, texts)
            print(
                f"{label:20} {whole:7.1f} s {seconds / whole:7.1f} x    "
                f"{rest:7.1f} s {seconds / rest:7.1f} x  {wrong:14.1%}"
            )
        rest = {name: max(1e-3, median[name] - median[f"{name}, one"]) for name in ("ours", "card")}
        print(f"ratio {median['card'] / median['ours']:17.2f} {rest['card'] / rest['ours']:28.2f}")


if __name__ == "__main__":
    main()
