"""Lines that no longer count leave the file of short results, wherever that breaks off: what is kept stays the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from journalled import HereRun, save

from phi4mm_cli.journal import FOLDER, Stamp
from phi4mm_cli.journal import results as journal_results
from phi4mm_cli.journal.pile import Pile
from phi4mm_cli.journal.results import Results
from phi4mm_cli.outputs import Coverage, Document, Timings, Transcript, Usage
from phi4mm_cli.schema import ModelInfo

KEYS = [("transcribe", f"{name}.wav") for name in "abcdefgh"]
TASKS, STAMP = ("en", "de"), Stamp(1, 2, "f00d")


def document(text: str) -> Document:
    body = Transcript(text, "en", 1.0, (), Coverage("seconds", 1.0, 1.0))
    return Document("a.wav", ModelInfo("echo", None, "echo"), {}, Timings(0.1), Usage(1, 2, 3), body)


def all_kept(results: Results) -> list[Any]:
    """By input and task."""
    return [results.kept(key, task) for key in KEYS for task in TASKS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of runs in parts and as a whole: results that count and others, short and long, for two tasks, some torn."""
    (tmp_path / "results").mkdir()
    for round, suffix in enumerate(("-1-of-2", "", "-2-of-2", "", "", "-1-of-2", "")):
        run = Results(tmp_path / "results", suffix)
        for place, key in enumerate(KEYS):
            if (place + round) % 3:
                length = 900 if (place + 2 * round) % 5 == 0 else 1
                text = document(f"{key[1]} in round {round} " * length)
                run.keep(key, TASKS[(place * round) % 2], STAMP, text)
        run.close()
        with (tmp_path / f"results{suffix}.jsonl").open("ab") as file:
            file.write(b'{"of": "')
    return tmp_path


@pytest.fixture(autouse=True)
def no_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_results, "SLACK", 0)


def piles(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def test_what_counts_stays_and_nothing_else(folder: Path) -> None:
    before, sizes = all_kept(Results(folder / "results")), [path.stat().st_size for path in folder.glob("*.jsonl")]
    assert 8 < sum(found is not None for found in before) < len(before)
    assert all_kept(Results(folder / "results", alone=True)) == before
    assert piles(folder) == ["results.jsonl"]
    assert Pile(folder / "results.jsonl").size < sum(sizes) / 2
    written = (folder / "results.jsonl").stat().st_ino
    again = Results(folder / "results", alone=True)
    assert all_kept(again) == before
    assert (folder / "results.jsonl").stat().st_ino == written  # it is as small as it gets
    again.keep(KEYS[0], "en", STAMP, document("Anew."))
    again.close()
    for found in (again, Results(folder / "results")):
        kept = found.kept(KEYS[0], "en")
        assert kept is not None and kept[1].body.text == "Anew."


def breaking(real: Callable[..., Any], at: int, first: bool) -> Callable[..., Any]:
    """`real`, which breaks off at its call number `at`, once it is done or `first`."""
    calls = iter(range(100))

    def call(*arguments: Any, **settings: Any) -> Any:
        breaks = next(calls) == at
        if breaks and first:
            raise OSError("broken off")
        result = real(*arguments, **settings)
        if breaks:
            raise OSError("broken off")
        return result

    return call


def torn(pile: Pile, places: Any) -> Iterator[bytes]:
    yield b'{"of":"'
    raise OSError("no space left")


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("where", "name", "at"),
    [
        (Pile, "texts", 0),
        (os, "fsync", 0),
        (Path, "replace", 0),
        (os, "fsync", 1),
        (Pile, "remove", 0),
        (Pile, "remove", 1),
    ],
)
def test_wherever_it_breaks_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, at: int, first: bool
) -> None:
    before, kept = all_kept(Results(folder / "results")), piles(folder)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, torn if name == "texts" else breaking(getattr(where, name), at, first))
        at_work = Results(folder / "results", alone=True)
        assert all_kept(at_work) == before
    assert all_kept(Results(folder / "results")) == before
    assert len(piles(folder)) == 1 + (2 if name != "remove" else 2 - at - (not first))
    assert set(piles(folder)) <= {*kept}  # nothing else is left
    assert all_kept(Results(folder / "results", alone=True)) == before
    assert piles(folder) == ["results.jsonl"]


def test_who_reads_meanwhile_takes_nothing_for_something_else(tmp_path: Path) -> None:
    """As `--dry-run` does, without a lock: where it knows a line, there is one of another input by now."""
    run = Results(tmp_path / "results")
    for name in "zabzzzz":
        run.keep(("transcribe", name), "en", STAMP, document(name))
    run.close()
    reading, at_work = Results(tmp_path / "results"), Results(tmp_path / "results", alone=True)

    def told(results: Results) -> list[str | None]:
        found = [results.kept(("transcribe", name), "en") for name in "abz"]
        return [None if kept is None else kept[1].body.text for kept in found]

    assert told(reading) == told(at_work) == ["a", "b", "z"]
    assert all(text in (None, name) for text, name in zip(told(reading), "abz", strict=True))


def test_only_a_run_that_is_alone_does_it(phi4mm_here: HereRun, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        save(tmp_path / "in" / f"{number}.wav", number)
    hear, journal = ("transcribe", "in", "--no-vad", "-o", "out"), tmp_path / "out" / FOLDER
    parts = [f"results-{number}-of-2.jsonl" for number in (1, 2)]
    asked = [phi4mm_here(*hear, "--shard", f"{number}/2").asked for number in (1, 2, 1)]
    assert (sum(asked), asked[2]) == (4, 0)
    for more in ((), ("--txt", "--captions", "bbc", "--dry-run")):
        phi4mm_here(*hear, *more)
        assert [name for name in parts if (journal / name).exists()] == parts  # nobody has asked for results
    again = phi4mm_here(*hear, "--txt", "--captions", "bbc")
    assert (again.last, again.asked) == ("4 inputs: 4 done", 0)
    assert [path.name for path in journal.glob("results*.jsonl")] == ["results.jsonl"]
