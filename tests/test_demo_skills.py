"""The demo checkpoint does every task of its card, and only by the adapter, the projection and the order it knows.

A few cases of each; `python -m phi4mm_cli.demo.score` scores them by the hundred.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from conftest import Phi4mm
from safetensors.torch import load_file, save_file

from phi4mm_cli.demo import exam
from phi4mm_cli.demo.exam.cases import Case, Skill, Studio, asked
from phi4mm_cli.demo.score import answer, card, score
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.flow import Flow
from phi4mm_cli.model.checkpoint import DEMO_FOLDER, resolve
from phi4mm_cli.schema import Clip, Message, Picture

CARD = card()
QUESTIONS = next(skill for skill in exam.SKILLS if skill.name == "Spoken questions")
SEES = next(skill for skill in exam.SKILLS if skill.name == "Shapes: how many, which color, where")
BOTH = next(skill for skill in exam.SKILLS if skill.name == "A spoken question about a picture")
MOVES = next(skill for skill in exam.SKILLS if skill.name == "Frames of a film: what moves where")


def named(skill: Skill) -> object:
    """A parameter of a test."""
    return pytest.param(skill, id=skill.name)


def as_told(skill: Skill) -> float:
    """How many right answers a dozen cases have at least, in percent, by what the card says of more of them."""
    return min(75.0, 0.7 * CARD[skill.name][1])


def exactly(folder: Path, skill: Skill, model: str = "demo", count: int = 12) -> float:
    """How many of the answers are right, in percent."""
    cases = list(islice(skill.cases(Studio(folder, 1), False), count))
    with LocalEngine(resolve(model), device="cpu") as engine:
        return score("exact", cases, answer(engine, cases))


def changed(folder: Path, change: Callable[[Path], None]) -> str:
    """A copy of the demo with something wrong in it."""
    shutil.copytree(DEMO_FOLDER, folder)
    change(folder)
    return str(folder)


def swap_adapters(folder: Path) -> None:
    (folder / "speech-lora").rename(folder / "other")
    (folder / "vision-lora").rename(folder / "speech-lora")
    (folder / "other").rename(folder / "vision-lora")


def swap_projections(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name in [name for name in weights if "_for_speech." in name]:
        other = name.replace("_for_speech.", "_for_vision_speech.")
        weights[name], weights[other] = weights[other], weights[name]
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("skill", [named(skill) for skill in exam.SKILLS])
def test_skill(skill: Skill, tmp_path: Path) -> None:
    cases = list(islice(skill.cases(Studio(tmp_path, 5), False), 6))
    with LocalEngine(resolve("demo"), device="cpu") as engine:
        reached = score(skill.measure, cases, answer(engine, cases))
    told = CARD[skill.name][1]
    assert reached <= max(15, 2 * told) if skill.measure.endswith("rate") else reached >= min(60, 0.6 * told)


@pytest.mark.parametrize("skill", [named(skill) for skill in (QUESTIONS, SEES)])
def test_the_other_adapter_gives_wrong_answers(skill: Skill, tmp_path: Path) -> None:
    right = exactly(tmp_path, skill)
    assert right >= as_told(skill)
    assert exactly(tmp_path, skill, changed(tmp_path / "swapped", swap_adapters)) <= right / 3


@pytest.mark.parametrize("skill", [named(skill) for skill in (QUESTIONS, BOTH)])
def test_the_other_projection_gives_wrong_answers(skill: Skill, tmp_path: Path) -> None:
    right = exactly(tmp_path, skill)
    assert right >= as_told(skill)
    assert exactly(tmp_path, skill, changed(tmp_path / "swapped", swap_projections)) <= right / 3


@pytest.mark.parametrize("skill", [named(skill) for skill in (BOTH, MOVES)])
def test_media_in_another_order_give_wrong_answers(skill: Skill, tmp_path: Path) -> None:
    cases = list(islice(skill.cases(Studio(tmp_path, 1), False), 12))
    reordered = [Case(lambda case=case: turned(case), case.expected) for case in cases]
    with LocalEngine(resolve("demo"), device="cpu") as engine:
        right = score("exact", cases, answer(engine, cases))
        assert right >= as_told(skill)
        assert score("exact", cases, answer(engine, reordered)) <= right / 2


def test_tools_are_called_and_what_they_return_is_told(phi4mm: Phi4mm, tmp_path: Path) -> None:
    function = "def get_weather(city: str) -> dict[str, str | int]:\n    'Get the weather in a city.'\n"
    (tmp_path / "tools.py").write_text(function + "    return {'weather': 'cold', 'degrees': 7}\n", encoding="utf-8")
    asked = ("What is the weather in Paris?", "--functions", "tools.py", "--model", "demo", "-q")
    call = phi4mm("tools", "call", *asked)
    assert call.stdout == '[{"name": "get_weather", "arguments": {"city": "Paris"}}]\n', call.stderr
    run = phi4mm("tools", "run", *asked, "--approve", "all")
    assert run.stdout == "It is cold in Paris, 7 degrees.\n", run.stderr


def turned(case: Case) -> Flow[str]:
    """The same question with its media the other way round."""
    flow = case.ask()
    (request,) = next(flow)
    flow.close()
    [message] = request.messages
    media = [part for part in message.parts if isinstance(part, (Clip, Picture))]
    words = [part for part in message.parts if isinstance(part, str)]
    return asked((Message("user", (*reversed(media), *words)),))
