"""The errors of transformers' port are none of ours: every case of `port_cases`, which says what each is about."""

from __future__ import annotations

import pytest
import torch
from port_cases import CASES, Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("port"))


@pytest.mark.parametrize("name", CASES)
def test_right_where_the_port_is_wrong(bench: Bench, name: str) -> None:
    with torch.no_grad():
        found = CASES[name](bench)
    assert found.ours <= found.tolerance
