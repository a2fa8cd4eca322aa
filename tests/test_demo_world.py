"""The demo's world: its published words are those it draws from, and what is kept for its exam is not trained on."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path

from phi4mm_cli import demo
from phi4mm_cli.demo.training.pool import passage, speak_passage
from phi4mm_cli.demo.world import __main__ as printed
from phi4mm_cli.demo.world import conversations, documents, pictures, scenes, sentences, tools

WORLD = Path(demo.__file__).parent / "WORLD.md"


def test_the_published_world_is_the_real_one() -> None:
    assert WORLD.read_text(encoding="utf-8").splitlines() == list(printed.lines())


def test_sentences_of_the_exam_are_never_spoken_in_training() -> None:
    told = [
        phrase["en"] for number in range(300) for phrase in passage(number, 7)[2] if "en" in phrase and "fr" in phrase
    ]
    assert 20 < sum(map(sentences.held_out, told)) < 0.2 * len(told)
    kinds = {number: passage(number, 7)[0] for number in range(60)}
    whole = [number for number, kind in kinds.items() if kind in ("sentence", "story")]
    for tests in (False, True):
        items = [item for number in whole for item, _ in speak_passage(number, 7, tests, unseen=False)]
        assert items
        assert {sentences.held_out(item["texts"]["en"]) for item in items} == {tests}


def test_a_sentence_says_the_same_in_every_language() -> None:
    rng = random.Random(1)
    for _ in range(300):
        drawn = sentences.draw(rng)
        phrase = sentences.say(sentences.TEMPLATES[0], drawn)
        assert phrase["en"].endswith(f"on {drawn.day['en']}.")
        assert phrase["fr"].endswith(f"heures {drawn.day['fr']}.")
        assert phrase["es"].endswith(f"el {drawn.day['es']}.")


def test_answers_follow_from_what_is_told() -> None:
    rng = random.Random(2)
    forms = {asked: (statement, reply) for statement, asked, reply in conversations.told()}
    known = unknown = 0
    for _ in range(200):
        chat = conversations.long_chat(rng, 12)
        for at, message in enumerate(chat[:-1]):
            if message.parts[0] not in forms:
                continue
            statement, reply = forms[str(message.parts[0])]
            head, tail = statement.split("{}")
            told = [text for text in (str(m.parts[0]) for m in chat[:at:2]) if text.startswith(head)]
            value = told[-1].removeprefix(head).removesuffix(tail) if told else None
            assert chat[at + 1].parts[0] == (reply.format(value) if value else conversations.UNKNOWN["en"])
            known, unknown = known + (value is not None), unknown + (value is None)
    assert min(known, unknown) > 50


def test_calls_name_a_tool_that_is_at_hand_with_its_arguments() -> None:
    rng = random.Random(3)
    for _ in range(200):
        wanted = tools.errand(rng)
        offered = {tool["name"]: tool for tool in json.loads(tools.offered(rng, wanted.tool))}
        assert offered[wanted.tool]["parameters"].keys() == wanted.arguments.keys()
        assert all(str(value) in wanted.asked or isinstance(value, int) for value in wanted.arguments.values())


def test_shapes_are_drawn_where_the_scene_has_them() -> None:
    rng = random.Random(4)
    for items in islice(iter(lambda: scenes.scene(rng), None), 40):
        drawing = pictures.draw_scene(items, rng, 448)
        marks = [mark for mark in drawing.marks if mark.kind == "tint"]
        for item, mark in zip(items, marks, strict=True):
            left, top, right, bottom = mark.box
            x, y = (left + right) / 2, (top + bottom) / 2
            assert (int(3 * x / 448), int(3 * y / 448)) == (item.spot % 3, item.spot // 3)
            seen = drawing.image.getpixel((int(x), int(y + 0.2 * (bottom - y))))
            assert isinstance(seen, tuple)
            assert sum(abs(a - b) for a, b in zip(seen, pictures.INKS[item.tint], strict=True)) < 120


def test_text_lies_where_its_marks_say() -> None:
    rng = random.Random(5)
    for write in (documents.line, documents.page, documents.table, documents.receipt):
        text = write(rng)
        drawing = pictures.draw_text(text, rng)
        words = [mark.text for mark in drawing.marks]
        assert sorted(words) == sorted(
            text.replace("# ", "").replace("**", "").replace("---", "").replace("|", " ").split()
        )
        grey = drawing.image.convert("L")
        for mark in drawing.marks:
            left, top, right, bottom = map(int, mark.box)
            assert 0 <= left < right <= drawing.image.width and 0 <= top < bottom <= drawing.image.height
            assert grey.crop((left, top, right, bottom)).getextrema()[0] < 130
