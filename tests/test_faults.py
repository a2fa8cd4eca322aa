"""A small part of `faults.py` with every run of the tests, all of it with `-m slow`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import faults
import pytest

QUICK = (
    faults.killed,
    faults.files_too_large,
    faults.inputs_lost,
    faults.names,
    faults.broken,
    faults.device_lost,
    faults.two_runs,
)


def survives(case: Callable[[Path, bool], str], small: bool) -> None:
    ending, seen = faults.run(case, small)
    if ending == "skipped":
        pytest.skip(seen)
    assert ending == "ok", seen


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.__name__)
def test_small(case: Callable[[Path, bool], str]) -> None:
    survives(case, small=True)


@pytest.mark.slow
@pytest.mark.parametrize("case", faults.CASES, ids=lambda case: case.__name__)
def test_large(case: Callable[[Path, bool], str]) -> None:
    survives(case, small=False)
