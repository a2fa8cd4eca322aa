"""One contract for all engines: the same requests have the same answers, to the token, wherever the model runs.

The model is the demo, in float32; other engines are held against `local`. What is documented as different is in
`DIFFERENT`: of the others it is demanded. `test_vllm.py` asks a real vLLM server the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from contract import Outcome, all_requests, answers, asked, drained, told
from serving import Server, serving

from phi4mm_cli.engines import Engine
from phi4mm_cli.engines.local import LocalEngine
from phi4mm_cli.engines.openai.engine import OpenAIEngine
from phi4mm_cli.errors import RequestError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL, resolve
from phi4mm_cli.schema import Request, Result

ENGINES = ("openai", "ray")
STREAMED = ("two turns", "a clip", "a picture", "both", "a tool", "drawn by chance")
DIFFERENT = {"openai": {"words"}}  # fields of the results: no server tells when words are said


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Request]:
    return all_requests(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--model", "demo", "--dtype", "float32", "--device", "cpu") as server:
        yield server


@pytest.fixture(scope="module")
def over_ray(cluster: None) -> Iterator[Engine]:
    """On two actors, which are not started anew for each test."""
    from phi4mm_cli.engines.cluster import ClusterEngine  # here, as it needs Ray

    with ClusterEngine("demo", workers=2, device="cpu", dtype="float32", batch_size=8) as engine:
        yield engine


@contextmanager
def opened(name: str, get: pytest.FixtureRequest) -> Iterator[Engine]:
    """The engine of that name, with the demo."""
    if name == "openai":
        url = f"{get.getfixturevalue('server').url}/v1"
        with OpenAIEngine([url], model=DEFAULT_MODEL, concurrency=4) as engine:
            yield engine
    elif name == "ray":
        yield get.getfixturevalue("over_ray")
    else:
        with LocalEngine(resolve("demo"), "cpu", "float32") as engine:
            yield engine


@pytest.fixture(scope="module")
def expected(requests: dict[str, Request]) -> dict[str, Outcome]:
    with LocalEngine(resolve("demo"), "cpu", "float32") as engine:
        return answers(engine, requests)


def test_the_requests_are_many_and_their_answers_differ(
    requests: dict[str, Request], expected: dict[str, Outcome]
) -> None:
    assert len(requests) >= 30
    # The demo sees the same in some of the pictures.
    assert len({told(outcome)["tokens"] for outcome in expected.values()}) > 20
    assert set(STREAMED) <= requests.keys()


@pytest.mark.parametrize("name", ENGINES)
def test_batches_are_the_same(
    name: str,
    requests: dict[str, Request],
    expected: dict[str, Outcome],
    request: pytest.FixtureRequest,
) -> None:
    with opened(name, request) as engine:
        found = answers(engine, requests)
    other = DIFFERENT.get(name, set())
    assert {case: told(outcome, other) for case, outcome in found.items()} == {
        case: told(outcome, other) for case, outcome in expected.items()
    }
    assert not [outcome for outcome in found.values() if isinstance(outcome, Result) and outcome.remarks]


@pytest.mark.parametrize("name", ENGINES)
def test_streams_are_the_same(
    name: str,
    requests: dict[str, Request],
    expected: dict[str, Outcome],
    request: pytest.FixtureRequest,
) -> None:
    with opened(name, request) as engine:
        for case in STREAMED:
            pieces, result = drained(engine.stream(requests[case]))
            assert "".join(pieces) == result.text, case
            assert told(result, {"words"}) == told(expected[case], {"words"}), case


@pytest.mark.parametrize("name", ("local", *ENGINES))
def test_a_prompt_that_is_too_long_fails_alone(name: str, request: pytest.FixtureRequest) -> None:
    with opened(name, request) as engine:
        assert engine.profile.context == 131072
        assert engine.count_tokens("a <|end|> b") > 3  # text like any other
        found = answers(engine, {"long": asked("a " * 140000), "short": asked("word")})
        assert isinstance(found["long"], RequestError)
        assert "131072" in found["long"].message
        assert isinstance(found["short"], Result)


@pytest.mark.parametrize("name", ("local", *ENGINES))
def test_a_request_that_is_dropped_is_not_answered(name: str, request: pytest.FixtureRequest) -> None:
    with opened(name, request) as engine:
        kept, dropped = asked("kept"), asked("dropped")
        engine.submit(dropped)
        engine.submit(kept)
        engine.cancel(dropped.key)
        assert [key for key, _ in engine.poll()] == [kept.key]
        assert engine.poll(0) == []
