"""The demo's exam on pictures goes through `describe` and `ocr`, and asks what the demo was trained to be asked."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from journalled import HereRun
from scripted import ScriptedEngine, said

from phi4mm_cli.demo import score
from phi4mm_cli.demo.exam.cases import Skill, Studio
from phi4mm_cli.demo.exam.pictures import READING, SHAPES, Described, Read
from phi4mm_cli.demo.world import pictures, prompts, scenes
from phi4mm_cli.media import document
from phi4mm_cli.schema import Clip, Picture, Request, Result


def asked(skill: Skill, folder: Path, count: int, beyond: bool = False) -> list[Request]:
    requests: list[Request] = []

    def answer(request: Request) -> Result:
        requests.append(request)
        return said("It is so.")

    cases = list(islice(skill.cases(Studio(folder, 3), beyond), count))
    answers = score.answer(ScriptedEngine(answer), cases)
    assert answers == ["It is so."] * count
    return requests


@pytest.mark.parametrize("skill", [*SHAPES, *READING], ids=lambda skill: skill.name)
def test_pictures_come_first_and_then_the_question_alone(skill: Skill, tmp_path: Path) -> None:
    for request in asked(skill, tmp_path, 2):
        [message] = request.messages
        *shown, question = message.parts
        assert 1 <= len(shown) <= 3
        assert all(isinstance(part, Picture) for part in shown)
        assert isinstance(question, Clip) == ("spoken" in skill.name)
        if skill in READING:
            assert question == prompts.READ


@pytest.mark.parametrize("skill", [*SHAPES, *READING], ids=lambda skill: skill.name)
def test_the_program_asks_what_is_scored(skill: Skill, tmp_path: Path, phi4mm_here: HereRun) -> None:
    [case] = islice(skill.cases(Studio(tmp_path, 3), False), 1)
    [wanted] = asked(skill, tmp_path, 1)
    requests: list[Request] = []

    def answer(request: Request) -> Result:
        requests.append(request)
        return said("It is so.")

    assert isinstance(case.ask, (Described, Read))
    assert phi4mm_here(*case.ask.command, engine=answer).code == 0
    assert requests == [wanted]


def test_a_video_shows_its_scenes(tmp_path: Path) -> None:
    [skill] = [skill for skill in SHAPES if "video" in skill.name]
    [request] = asked(skill, tmp_path, 1)
    assert [picture.time for picture in request.pictures] == pytest.approx([20 / 6, 10, 100 / 6], abs=0.1)
    assert request.messages[0].parts[-1] == scenes.MOTION
    studio = Studio(tmp_path, 3)
    film, _ = scenes.frames(studio.rng)
    for picture, items in zip(request.pictures, film, strict=True):
        drawn = np.asarray(pictures.draw_scene(items, studio.rng, pictures.CROP).image).astype(int)
        assert np.abs(np.asarray(document.read(picture)).astype(int) - drawn).mean() < 6
