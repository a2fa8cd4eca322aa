"""How far the starts of words and captions are from the truth, on speech whose words and times are known."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Sequence

from phi4mm_cli import captions
from phi4mm_cli.outputs import Segment
from phi4mm_cli.schema import Word

ANYWHERE = ((-math.inf, math.inf),)


def plain(word: str) -> str:
    """Without case and punctuation."""
    return re.sub(r"[^\w']", "", word.lower())


def matches(found: Sequence[Word], known: Sequence[Word]) -> dict[int, Word]:
    """The known word for each found one that was recognised, beside another that was."""
    matcher = difflib.SequenceMatcher(None, [plain(w.word) for w in found], [plain(w.word) for w in known], False)
    blocks = [block for block in matcher.get_matching_blocks() if block.size >= 2]
    return {block.a + i: known[block.b + i] for block in blocks for i in range(block.size)}


def errors(
    segments: Sequence[Segment], known: Sequence[Word], chunks: Sequence[tuple[float, float]] = ANYWHERE
) -> Iterator[tuple[str, float]]:
    """("word" or "caption", seconds) of every start that has a truth; captions are those of `--srt`.

    A word has its truth in its own chunk, where `chunks` are given (from, to): what a model has heard there is all that
    it can have written down, and a sentence that it invents is none of the same words a chunk further on.
    """
    words = [word for segment in segments for word in segment.words or ()]
    truth: dict[int, Word] = {}
    for start, end in chunks:
        own = [place for place, word in enumerate(words) if start <= word.start < end]
        said = [word for word in known if start <= word.start < end]
        truth |= {own[place]: word for place, word in matches([words[place] for place in own], said).items()}
    for place, word in truth.items():
        yield "word", words[place].start - word.start
    owners = [place for place, word in enumerate(words) for _ in word.word]  # of each character that is no space
    at = 0
    for caption in captions.from_segments(segments, language="en"):
        if owners[at] in truth and (at == 0 or owners[at] != owners[at - 1]):
            yield "caption", caption.start / 1000 - truth[owners[at]].start
        at += sum(not character.isspace() for line in caption.lines for character in line)
