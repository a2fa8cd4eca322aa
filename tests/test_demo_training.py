"""The demo's trainer: what it tells of where things are, against where they are drawn, and what it begins from."""

from __future__ import annotations

import random
import re
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from phi4mm_cli.demo.training import architecture, export, loop, parts
from phi4mm_cli.demo.training.examples import Encoder
from phi4mm_cli.demo.training.looking import BEFORE, LINE, WORD, Labeller
from phi4mm_cli.demo.training.seeing import Shown, example, lines, pointers
from phi4mm_cli.demo.world import documents, pictures, prompts, scenes
from phi4mm_cli.demo.world.conversations import answer, user
from phi4mm_cli.demo.world.pictures import Drawing
from phi4mm_cli.model.checkpoint import DEMO_FOLDER


def test_words_of_a_page_are_pointed_at_where_they_stand() -> None:
    rng, writer = random.Random(5), Encoder(Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json")))
    for make in (documents.page, documents.table, documents.line):
        text = make(rng)
        seen = Labeller(writer).see(pictures.draw_text(text, rng))
        shown = Shown((seen,), None, (user(prompts.READ), answer(text)))
        ids = torch.tensor(example(writer, shown).ids)
        first = int((ids == writer.special["<|image|>"]).nonzero()[0])
        pointed = pointers(writer, shown, ids)
        assert len(pointed) >= len([piece for piece in text.split() if piece.strip("#*|-")])
        right = 0
        for asking, places in pointed:
            there = seen.words[torch.tensor(places) - first].tolist()
            written = writer.tokenizer.decode([int(ids[asking + 1])]).strip()
            right += written in [writer.tokenizer.decode([token]).strip() for token in there if token]
        assert right >= 0.8 * len(pointed)  # two short tokens may share a position, which then shows the second


def test_each_word_of_a_picture_has_the_one_that_is_told_before_it() -> None:
    rng, writer = random.Random(6), Encoder(Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json")))

    def held(drawing: Drawing) -> list[tuple[str, str]]:
        """Of the positions in the order of reading, what is told before and the word; each once."""
        seen = Labeller(writer).see(drawing)
        labels = seen.labels[: seen.used[0] * (seen.used[1] + 1)]
        pairs = labels[labels[:, WORD] > 0][:, [BEFORE, WORD]].tolist()
        names = [tuple(writer.tokenizer.decode([token]).strip() if token else "" for token in pair) for pair in pairs]
        return [pair for pair, _ in groupby(names)]

    page = held(pictures.draw_text(text := documents.page(rng), rng))
    linked = [word == before for (_, word), (before, _) in pairwise(page)]
    assert sum(linked) >= 0.9 * len(linked)  # a token that has no position of its own is not seen
    written = "".join(word for _, word in page)
    assert SequenceMatcher(None, written, "".join(text.strip("# ").split()), autojunk=False).ratio() > 0.95

    scene = scenes.scene(rng)
    told = [word for item in scene for word in (item.tint, item.shape)]
    assert sorted(held(pictures.draw_scene(scene, rng))) == sorted(zip(["", *told], told, strict=False))


def test_each_word_of_a_page_has_its_line() -> None:
    rng, writer = random.Random(8), Encoder(Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json")))
    for text in (*(draw(rng) for draw in (documents.page, documents.receipt, documents.table) for _ in range(4)),):
        seen = Labeller(writer).see(pictures.draw_text(text, rng))
        labels = seen.labels[: seen.used[0] * (seen.used[1] + 1)]
        read: dict[int, str] = {}
        for token, number in labels[labels[:, WORD] > 0][:, [WORD, LINE]].tolist():
            read[number] = read.get(number, "") + writer.tokenizer.decode([token]).strip()
        told = [line for line in text.split("\n") if not line.startswith("| ---")]
        assert list(read) == [*range(1, len(told) + 1)]
        for written, line in zip(read.values(), told, strict=True):
            ratios = [SequenceMatcher(None, written, "".join(re.findall(r"[\w.']+", other))).ratio() for other in told]
            assert told[ratios.index(max(ratios))] == line


def test_each_token_of_an_answer_has_the_line_that_comes_next() -> None:
    rng, writer = random.Random(9), Encoder(Tokenizer.from_file(str(DEMO_FOLDER / "tokenizer.json")))
    for draw in (documents.page, documents.receipt):
        text = draw(rng)
        seen = Labeller(writer).see(pictures.draw_text(text, rng))
        shown = Shown((seen,), None, (user(prompts.READ), answer(text)))
        ids = torch.tensor(example(writer, shown).ids)
        held = torch.zeros_like(ids)
        held[ids == writer.special["<|image|>"]] = seen.labels[:, LINE]
        begin = int((ids == writer.special["<|assistant|>"]).nonzero()[0]) + 1
        found = [*lines(writer, ids, held, pointers(writer, shown, ids))]
        assert [token for token, _ in found] == [*range(found[0][0], len(ids) - 1)]
        assert found[-1] == (len(ids) - 2, 0)
        for token, line in found[:-1]:
            assert line == 1 + writer.tokenizer.decode(ids[begin : token + 2].tolist()).count("\n")


def test_the_base_model_that_ships_is_what_adapters_are_trained_on(tmp_path: Path) -> None:
    export.take_base(DEMO_FOLDER, tmp_path)
    decoder = parts.decoder(architecture.new_network(parts.vocabulary(parts.tokenizer(tmp_path))))
    loop.load_state(tmp_path / "far.safetensors", decoder)
    shipped = load_file(DEMO_FOLDER / "model.safetensors")
    assert all(torch.equal(parameter.bfloat16(), shipped[name]) for name, parameter in decoder.items())
