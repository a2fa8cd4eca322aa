"""The folder that vLLM serves: the checkpoint's own weights, and a processor that computes as phi4mm does.

Whether vLLM itself takes it, `test_vllm.py` tells.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import Phi4mm
from safetensors.torch import load_file

from phi4mm_cli.commands.serve_command import spread
from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.convert import write_original, write_vllm
from phi4mm_cli.model.original import read_original

# Run where phi4mm has not been imported: it is compared with afterwards.
PROCESS = """
import sys
import numpy, torch
from PIL import Image
from transformers import AutoConfig, AutoProcessor

folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
noise = numpy.random.default_rng(0)
picture = Image.fromarray(noise.integers(0, 256, (300, 700, 3), dtype=numpy.uint8))
small = Image.new("RGB", (40, 40), "red")
clips = [noise.normal(0, 0.1, length).astype(numpy.float32) for length in (16000, 5000)]
prompt = "<|user|><|image_1|><|image_2|>\\nWhat?<|audio_1|><|audio_2|>Transcribe.<|end|><|assistant|>"
given = processor(text=prompt, images=[picture, small], audios=[(clip, 16000) for clip in clips])
bare = processor(text="<|user|>Hello<|end|>")
assert not [name for name in sys.modules if name.startswith("phi4mm_cli")]

from phi4mm_cli.model.features import log_mel
from phi4mm_cli.model.pixels import pixels

crops, features = [pixels(image) for image in (picture, small)], [log_mel(clip, 16000) for clip in clips]
for number, crop in enumerate(crops):
    assert torch.equal(given["input_image_embeds"][number, : len(crop.values)], crop.values)
    assert torch.equal(given["image_attention_mask"][number, : len(crop.mask)], crop.mask.float())
    assert tuple(given["image_sizes"][number]) == crop.size
    assert not given["image_attention_mask"][number, len(crop.mask) :].any()
for number, frames in enumerate(features):
    assert torch.equal(given["input_audio_embeds"][number, : len(frames)], frames)
tokens = given["input_ids"][0].tolist()
assert tokens.count(200010) == sum(crop.tokens for crop in crops)
assert tokens.count(200011) == sum(-(-len(frames) // 8) for frames in features)
spoken = ("<|user|>", "\\nWhat?", "Transcribe.<|end|><|assistant|>")
words = [token for part in spoken for token in processor.tokenizer.encode(part)]
assert [token for token in tokens if token not in (200010, 200011)] == words
assert words[0] == 200021 and words[-2:] == [200020, 200019]
assert bare["input_ids"].shape[0] == 1 and set(bare) == {"input_ids", "attention_mask", "image_sizes"}
assert tuple(bare["image_sizes"].shape) == (0, 2)
turns = [{"role": "system", "content": "Be brief.", "tools": "[]"}, {"role": "user", "content": "<|audio_1|>Hi"}]
rendered = processor.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
assert rendered == "<|system|>Be brief.<|tool|>[]<|/tool|><|end|><|user|><|audio_1|>Hi<|end|><|assistant|>"
assert (config.model_type, config.embd_layer["audio_embd_layer"]["compression_rate"]) == ("phi4mm", 8)
assert processor.image_processor.find_closest_aspect_ratio(10.0, [(1, 1), (6, 6), (1, 36)], 22400, 448, 448) == (36, 1)
"""


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "vllm"
    write_vllm(tiny_folder, "native", folder)
    return folder


def test_the_processor_computes_what_phi4mm_does(served: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROCESS, str(served)],
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_it_is_one_of_the_original_layout_with_adapters_beside(served: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """From either layout; and phi4mm reads it."""
    write_original(tiny_folder, tmp_path / "original")
    write_vllm(tmp_path / "original", "original", tmp_path / "again")
    for folder in (tmp_path / "original", tmp_path / "again"):
        for name in ("model", "speech-lora/adapter_model", "vision-lora/adapter_model"):
            one, other = (load_file(path / f"{name}.safetensors") for path in (served, folder))
            assert one.keys() == other.keys()
            assert all(torch.equal(one[key], other[key]) for key in one)
    names = {path.name for path in served.iterdir()}
    assert names == {path.name for path in (tmp_path / "again").iterdir()}
    for name in names - {"model.safetensors", "speech-lora", "vision-lora"}:
        assert (served / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert read_original(served).adapters.keys() == {"speech", "vision"}
    config = json.loads((served / "config.json").read_text())
    assert config["auto_map"].keys() == {"AutoConfig", "AutoProcessor"}  # no tokenizer from the Hub


def test_the_command_line(phi4mm: Phi4mm, served: Path, tmp_path: Path) -> None:
    run = phi4mm("serve-command", served, "--max-length", 2048, "--port", 8123)
    assert run.returncode == 0
    assert (
        run.stderr
        == "phi4mm: warning: vLLM loads no vision tower but the released one's size, and this model's is another\n"
    )
    words = shlex.split(run.stdout)
    options = " ".join(words)
    assert f"vllm serve {served} --served-model-name vllm --trust-remote-code" in options
    assert "--max-model-len 2048" in options and "--port 8123" in options
    places = 2 if torch.cuda.is_available() else 3  # on a CPU the last one is to be empty
    loaded = f"speech={served}/speech-lora vision={served}/vision-lora"
    assert f"--max-lora-rank 8 --max-loras {places} --lora-modules {loaded}" in options
    assert json.loads(words[words.index("--limit-mm-per-prompt") + 1]) == {"audio": 8, "image": 8}
    long = phi4mm("serve-command", served, "--max-length", 4097)
    assert (long.returncode, long.stdout) == (2, "")
    other = phi4mm("serve-command", tmp_path)
    assert other.returncode == 5
    wrong = phi4mm("models", "convert", "demo", tmp_path / "original", "--to", "original")
    assert wrong.returncode == 0
    refused = phi4mm("serve-command", tmp_path / "original")
    assert refused.returncode == 2
    assert "--to vllm" in refused.stderr


def test_copies_and_parts_on_gpus() -> None:
    gb = 10**9
    assert spread(12 * gb, []) == []
    assert spread(12 * gb, [24 * gb]) == []
    assert spread(12 * gb, [24 * gb] * 4) == ["--data-parallel-size", "4"]
    assert spread(12 * gb, [12 * gb] * 4) == ["--tensor-parallel-size", "2", "--data-parallel-size", "2"]
    assert spread(12 * gb, [12 * gb] * 3) == ["--tensor-parallel-size", "2"]
    with pytest.raises(MissingError, match="do not fit"):
        spread(12 * gb, [8 * gb])
