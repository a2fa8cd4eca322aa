"""A model that does not fit into memory is refused before a byte of it is read, with what would fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest
import torch
from conftest import Phi4mm
from tiny_model import write_adapter, write_tiny_model

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines import Listener
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MemoryExhaustedError
from phi4mm_cli.model import memory
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.loading import open_contents
from phi4mm_cli.model.original import Contents
from phi4mm_cli.schema import Message, Request, Sampling

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    write_adapter(folder)
    return folder


@pytest.fixture(scope="module")
def contents(tiny: Path) -> Contents:
    return open_contents(resolve(str(tiny)))


def too_large(folder: Path) -> Path:
    """The demo with a vocabulary that takes a terabyte, in a file that is almost all hole."""
    shutil.copytree(resolve("demo").path, folder)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:length])
    entry = header["model.embed_tokens.weight"]
    hidden, last = entry["shape"][1], max(e["data_offsets"][1] for n, e in header.items() if n != "__metadata__")
    begin, end = entry["data_offsets"]
    rows = 2**40 // hidden // 4
    for other in (e for n, e in header.items() if n != "__metadata__"):  # the embeddings move to the end
        if other["data_offsets"][0] >= end:
            other["data_offsets"] = [offset - (end - begin) for offset in other["data_offsets"]]
    first = last - (end - begin)
    entry |= {
        "shape": [rows, hidden],
        "data_offsets": [first, first + rows * hidden * (4 if entry["dtype"] == "F32" else 2)],
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + entry["data_offsets"][1])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    return folder


def test_through_the_program(phi4mm: Phi4mm, tmp_path: Path) -> None:
    folder = too_large(tmp_path / "large")
    run = phi4mm("transcribe", SAMPLES / "meeting.flac", "-q", "--device", "cpu", "--model", folder)
    assert (run.returncode, run.stdout) == (6, "")
    assert run.stderr.count("\n") == 1
    assert "needs" in run.stderr and "in float32, and this machine has" in run.stderr
    assert "--model demo" in run.stderr


def test_what_is_needed_comes_from_the_headers(tiny: Path, contents: Contents) -> None:
    stored = sum(path.stat().st_size for path in tiny.rglob("*.safetensors"))
    request = memory.row_numbers(contents.config, 30.0) + memory.map_numbers(contents.config)
    weights = memory.needed(contents, torch.float32) - 4 * request
    assert weights == pytest.approx(stored, rel=0.1)
    assert memory.needed(contents, torch.bfloat16) * 2 == memory.needed(contents, torch.float32)


def test_what_is_free() -> None:
    assert 0 < memory.free(CPU) <= psutil.virtual_memory().total


def test_a_container_counts_its_own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "max").write_text("3000000\n")
    (tmp_path / "current").write_text("1000000\n")
    monkeypatch.setattr(memory, "LIMITS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert memory.free(CPU) == 2_000_000
    (tmp_path / "memory.stat").write_text("anon 600000\ninactive_file 300000\nactive_file 100000\n")
    assert memory.free(CPU) == 2_400_000  # the pages of files that were read are given back
    (tmp_path / "max").write_text("max\n")
    assert memory.free(CPU) > 2_000_000


def free_is(monkeypatch: pytest.MonkeyPatch, contents: Contents, **of: float) -> None:
    """Let a device have that many times the memory that the model needs in bfloat16."""
    need = memory.needed(contents, torch.bfloat16)
    monkeypatch.setattr(memory, "free", lambda device: int(of[device.type] * need))


@pytest.mark.parametrize(
    ("device", "dtype", "free", "advice"),
    [
        (CPU, torch.float32, {"cpu": 1.5}, "Use --dtype bfloat16, which needs"),
        (CPU, torch.bfloat16, {"cpu": 0.999}, "Use --quantize int8, which needs"),
        (CPU, torch.bfloat16, {"cpu": 0.9}, "End other programs"),
        (GPU, torch.bfloat16, {"cuda": 0.997, "cpu": 9.0}, "Use --quantize int4, which needs"),
        (GPU, torch.bfloat16, {"cuda": 0.9, "cpu": 2.0}, "Use --device cpu, which needs"),
        (GPU, torch.bfloat16, {"cuda": 0.9, "cpu": 1.5}, "Use --device cpu --dtype bfloat16, which needs"),
        (GPU, torch.float32, {"cuda": 1.5, "cpu": 9.0}, "Use --dtype bfloat16, which needs"),
        (GPU, torch.float16, {"cuda": 0.5, "cpu": 0.5}, "End other programs"),
    ],
)
def test_the_advice_is_what_fits(
    monkeypatch: pytest.MonkeyPatch,
    contents: Contents,
    device: torch.device,
    dtype: torch.dtype,
    free: dict[str, float],
    advice: str,
) -> None:
    free_is(monkeypatch, contents, **free)
    with pytest.raises(MemoryExhaustedError) as caught:
        memory.require("mine", contents, device, dtype)
    assert caught.value.message.startswith("the model mine needs ")
    assert caught.value.advice.startswith(advice)


def test_rows_are_what_the_cache_and_the_encoder_take(monkeypatch: pytest.MonkeyPatch, contents: Contents) -> None:
    released = {"hidden_size": 3072, "num_attention_heads": 24, "num_key_value_heads": 8, "num_hidden_layers": 32}
    released |= {"intermediate_size": 8192, "audio_config": {"nemo_conv_channels": 1024, "num_attention_heads": 16}}
    token = 2 * memory.token_numbers(released)  # bytes of bfloat16
    assert token == 128 * 1024 + 2 * (3 * 8192 + 4 * 3072)
    assert 2 * memory.row_numbers(released, 0.0) == memory.ROW_TOKENS * token
    clips = 2 * (memory.row_numbers(released, 30.0) - memory.row_numbers(released, 0.0))
    assert clips == 375 * token + 2 * 3 * 375 * 500 * 16
    assert 2 * memory.map_numbers(released) == 2 * 3 * 1024 * 1500 * 40
    row, maps = 4 * memory.row_numbers(contents.config, 30.0), 4 * memory.map_numbers(contents.config)
    for free, rows in ((6.5 * row + maps, 6), (0.5 * row + maps, 0), (0, 0)):
        monkeypatch.setattr(memory, "free", lambda device, free=free: int(free / 0.7))
        assert memory.rows_that_fit(contents, GPU, torch.float32, 30.0) == rows


def ask(text: str, budget: int = 2) -> Request:
    return Request((Message("user", (text,)),), Sampling(budget))


def test_a_cpu_takes_as_many_at_once_as_its_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, contents: Contents
) -> None:
    need, row = memory.needed(contents, torch.float32), 4 * memory.row_numbers(contents.config, 30.0)
    for rows, free in ((16, 10**12), (3, 0.7 * need + 3.5 * row)):
        monkeypatch.setattr(memory, "free", lambda device, free=free: int(free / 0.7))
        with LocalEngine(resolve(str(tiny)), "cpu") as engine:
            engine.submit(ask("a"))
            assert len(engine.poll()) == 1
            if rows == 16:
                assert engine.rows == 16
            else:
                assert 3 <= engine.rows < 16


def test_what_a_cpu_has_no_room_for_is_refused_before_the_system_ends_the_program(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    long, short = ask("a b " * 40), [ask(text) for text in "abcdefgh"]
    with LocalEngine(resolve(str(tiny)), "cpu", batch_size=8) as engine:
        for one in short:
            engine.submit(one)
        expected = dict(engine.poll())
        room = engine._loaded().token_bytes * 40
        monkeypatch.setattr(memory, "free", lambda device: room)
        for one in short:
            engine.submit(one)
        found: dict[str, object] = {}
        while outcomes := engine.poll():
            found |= dict(outcomes)
        assert found == expected
        assert 1 < engine.rows < 8
        engine.submit(long)
        [(key, outcome)] = engine.poll()
        assert key == long.key
        assert isinstance(outcome, MemoryExhaustedError)
        with pytest.raises(MemoryExhaustedError, match="Use shorter clips or texts"):
            next(engine.stream(long))
        assert list(engine.stream(short[0]))


class Heard(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.bytes: list[tuple[int, int]] = []

    def loaded(self, done: int, total: int) -> None:
        self.bytes.append((done, total))

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize(("free", "dtype"), [(2.0, "float32"), (1.5, "bfloat16")])
def test_a_cpu_takes_float32_where_it_fits_and_says_where_not(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, contents: Contents, free: float, dtype: str
) -> None:
    free_is(monkeypatch, contents, cpu=free)
    heard = Heard()
    with LocalEngine(resolve(str(tiny)), "cpu", listener=heard) as engine:
        engine.submit(Request((Message("user", ("a",)),), Sampling(1)))
        assert len(engine.poll()) == 1
        assert engine.info.dtype == dtype
    assert heard.bytes[-1][0] == heard.bytes[-1][1] > 0
    assert [note.split(": ")[0] for note in heard.notes] == ["the model model runs in bfloat16"] * (dtype == "bfloat16")
