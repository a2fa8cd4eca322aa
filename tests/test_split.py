"""One model over several devices: which layers go where, and that the pieces compute what the whole does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Phi4mm
from test_local_engine import ASK, SENTENCES, answers, request, saved
from tiny_model import write_adapter, write_tiny_model

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.errors import MemoryExhaustedError
from phi4mm_cli.model.checkpoint import resolve
from phi4mm_cli.model.loading import open_contents
from phi4mm_cli.model.memory import map_numbers, row_numbers
from phi4mm_cli.model.original import Contents
from phi4mm_cli.model.split import KEPT, split

CPU, FIRST, SECOND = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    write_adapter(folder)
    return folder


@pytest.fixture(scope="module")
def contents(tiny: Path) -> Contents:
    return open_contents(resolve(str(tiny)))


@pytest.mark.parametrize(
    ("first", "second", "cpu", "places"),  # how many layers each has room for; the first has room for the rest
    [
        (2.5, 0.0, 0.0, [FIRST, FIRST]),
        (1.5, 1.1, 0.0, [FIRST, SECOND]),
        (0.5, 2.1, 0.0, [SECOND, SECOND]),
        (1.5, 0.9, 1.1, [FIRST, CPU]),
        (0.0, 0.0, 2.1, [CPU, CPU]),
        (1.5, 0.9, 0.9, None),
        (-0.1, 9.0, 9.0, None),  # not even that
    ],
)
def test_layers_go_where_there_is_room(
    contents: Contents, first: float, second: float, cpu: float, places: list[torch.device] | None
) -> None:
    numbers = {place: tensor.count for place, tensor in contents.tensors.items()}
    layer = sum(count for (_, name), count in numbers.items() if name.startswith("model.layers.0."))
    rest = sum(count for (_, name), count in numbers.items() if not name.startswith("model.layers."))
    rest += row_numbers(contents.config, 30.0) + map_numbers(contents.config)
    free = {FIRST: rest + first * layer, SECOND: second * layer, CPU: cpu * layer}
    room = {device: int(1 + 2 * count / (1 - KEPT)) for device, count in free.items()}
    if places is None:
        with pytest.raises(MemoryExhaustedError, match=r"needs .* of them on cuda:0, and there are .* on cpu"):
            split(contents, [FIRST, SECOND], torch.bfloat16, room.__getitem__)
    else:
        found = split(contents, [FIRST, SECOND], torch.bfloat16, room.__getitem__)
        assert found == dict(enumerate(places))


def test_the_pieces_compute_what_the_whole_does(tiny: Path, tmp_path: Path) -> None:
    clip = saved(tmp_path / "a.wav", SENTENCES[0])
    spoken = replace(request(clip, ASK, budget=12), word_times=True)
    asked = [spoken, request("a b", budget=9), request("c", budget=5), request("d " * 70)]
    found = []
    for pieces in (False, True):
        with LocalEngine(resolve(str(tiny)), device="cpu", split=pieces) as engine:
            found.append(answers(engine, *asked))
            layers = engine._loaded().network.model.layers
            assert [hasattr(layer, "_hf_hook") for layer in layers] == [pieces, pieces]
            assert engine.info.device == "cpu"
    assert found[0] == found[1]


def test_what_does_not_go_together_is_refused(phi4mm: Phi4mm) -> None:
    options = ("-m", "demo", "--device-map", "auto", "--quantize", "int8", "-q")
    run = phi4mm("transcribe", SAMPLES / "meeting.flac", *options)
    assert (run.returncode, run.stdout) == (2, "")
    assert "--device-map and --quantize do not go together" in run.stderr
