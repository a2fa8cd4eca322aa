"""What the demo's trainer tells the model about where things are, against where they are drawn."""

from __future__ import annotations

import random

import torch
from tokenizers import Tokenizer

from phi4mm_cli.demo.training.examples import Encoder
from phi4mm_cli.demo.training.looking import Labeller
from phi4mm_cli.demo.training.seeing import Shown, example, pointers
from phi4mm_cli.demo.world import documents, pictures, prompts
from phi4mm_cli.demo.world.conversations import answer, user
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
        for asking, begin, end in pointed.tolist():
            there = seen.words[begin - first : end - first].tolist()
            written = writer.tokenizer.decode([int(ids[asking + 1])]).strip()
            right += written in [writer.tokenizer.decode([token]).strip() for token in there if token]
        assert right >= 0.8 * len(pointed)  # two short tokens may share a position, which then shows the second
