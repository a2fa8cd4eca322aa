"""The language of a text: right or unknown in all that the model writes, never wrong; and quick to say nothing."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phi4mm_cli import languages
from phi4mm_cli.demo.world.sentences import sentence
from phi4mm_cli.language_check import UNKNOWN, is_other, judge

SENTENCES: dict[str, list[str]] = json.loads(
    (Path(__file__).parent / "data" / "languages.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("code", languages.TEXT)
def test_every_language_is_known_and_none_is_mistaken(code: str) -> None:
    thanks, where, meeting, budget = SENTENCES[code]
    assert {judge(text) for text in (thanks, where, meeting, budget)} <= {code, UNKNOWN}
    assert judge(f"{meeting} {budget} {where} {thanks}") == code
    for other in languages.TEXT:
        assert is_other(f"{where} {meeting} {budget}", other) == (other != code)


def test_single_sentences_are_hardly_ever_mistaken() -> None:
    rng, judged = random.Random(3), []
    for _ in range(300):
        said = sentence(rng)
        judged += [(judge(said[code]), code) for code in ("en", "fr", "es")]
    assert not [pair for pair in judged if pair[0] not in (pair[1], UNKNOWN)]
    assert sum(found == code for found, code in judged) > 0.8 * len(judged)


@pytest.mark.parametrize(
    "text", ["", " \n", "12:30", "3.14 %", "♪", "OK.", "Nina, Paul, Berlin.", "https://example.org/"]
)
def test_what_tells_nothing_is_unknown(text: str) -> None:
    assert judge(text) == UNKNOWN
    assert not is_other(text, "fr")


def test_from_many_threads() -> None:
    texts = [(code, " ".join(sentences)) for code, sentences in SENTENCES.items()] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(judge, (text for _, text in texts))) == [code for code, _ in texts]


def test_nothing_is_loaded_until_there_is_something_to_judge() -> None:
    probe = (
        "import sys\nfrom phi4mm_cli.language_check import judge\njudge('12:30')\n"
        "print('py3langid' in sys.modules, 'numpy' in sys.modules)\n"
        "print(judge('The meeting starts tomorrow at nine.'))"
    )
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, encoding="utf-8", check=True)
    assert run.stdout.splitlines() == ["False False", "en"]
