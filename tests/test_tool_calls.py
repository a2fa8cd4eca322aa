"""What the model writes, read as calls: every way that it writes them, what is none, and nothing that is not there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phi4mm_cli.schema import ToolCall
from phi4mm_cli.tools.calls import CallError, mentioned, parse

NAMES = ("get_weather", "run", "search")
PARIS = [ToolCall("get_weather", {"city": "Paris"})]
PARIS_TEXT = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
TWO = [ToolCall("get_weather", {"city": "Paris"}), ToolCall("search", {"q": "x"})]
TWO_TEXT = f'{PARIS_TEXT}, {{"name": "search", "arguments": {{"q": "x"}}}}'


def run(**arguments: Any) -> list[ToolCall]:
    return [ToolCall("run", arguments)]


READ: list[tuple[str, list[ToolCall]]] = [
    # between markers
    (f"<|tool_call|>[{PARIS_TEXT}]<|/tool_call|>", PARIS),
    (f"<|tool_call|>{PARIS_TEXT}<|/tool_call|>", PARIS),
    (f"<|tool_call|>\n[{PARIS_TEXT}]\n<|/tool_call|>\n", PARIS),
    (f"<|tool_call|>[{PARIS_TEXT}]", PARIS),  # the marker behind it is often left out
    (f"Let me look.<|tool_call|>[{PARIS_TEXT}]<|/tool_call|>", PARIS),
    (f"Let me look.<|tool_call|>[{PARIS_TEXT}]<|/tool_call|>One moment.", PARIS),
    (f"<|tool_call|>[{PARIS_TEXT}] That should do.", PARIS),
    (f"<|tool_call|>[{TWO_TEXT}]<|/tool_call|>", TWO),
    (f"<|tool_call|>{TWO_TEXT}<|/tool_call|>", TWO),
    ("<|tool_call|>" + TWO_TEXT.replace("}}, {", "}}\n{") + "<|/tool_call|>", TWO),
    (f"<|tool_call|>[{PARIS_TEXT}]<|/tool_call|><|tool_call|>[{PARIS_TEXT}]<|/tool_call|>", PARIS * 2),
    (f"<|tool_call|>[{PARIS_TEXT}]<|tool_call|>[{PARIS_TEXT}]", PARIS * 2),
    (f"<|tool_call|>functools[{PARIS_TEXT}]<|/tool_call|>", PARIS),
    (f"<|tool_call|>```json\n[{PARIS_TEXT}]\n```<|/tool_call|>", PARIS),
    ('<|tool_call|>[{"name": "unknown", "arguments": {}}]<|/tool_call|>', [ToolCall("unknown", {})]),
    ('<|tool_call|>[{"name": "run"}]<|/tool_call|>', run()),
    ('<|tool_call|>[{"name": "run", "arguments": null}]<|/tool_call|>', run()),
    ('<|tool_call|>[{"name": "run", "arguments": ""}]<|/tool_call|>', run()),
    ('<|tool_call|>[{"name": "run", "parameters": {"a": 1}}]<|/tool_call|>', run(a=1)),
    (
        '<|tool_call|>[{"name": "run", "arguments": "{\\"a\\": [1, {\\"b\\": \\"}]\\"}]}"}]<|/tool_call|>',
        run(a=[1, {"b": "}]"}]),
    ),
    (f'<|tool_call|>[{{"type": "function", "function": {PARIS_TEXT}}}]<|/tool_call|>', PARIS),
    ('<|tool_call|>[{"id": "c1", "name": "run", "arguments": {"a": true}}]<|/tool_call|>', run(a=True)),
    # brackets, braces, quotes and markers in strings
    ('<|tool_call|>[{"name": "run", "arguments": {"a": [[1, 2], [3, [4]]]}}]<|/tool_call|>', run(a=[[1, 2], [3, [4]]])),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": "]}"}}]<|/tool_call|>', run(a="]}")),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": "say \\"hi\\" \\\\"}}]<|/tool_call|>', run(a='say "hi" \\')),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": "<|/tool_call|>"}}]<|/tool_call|>', run(a="<|/tool_call|>")),
    (
        '<|tool_call|>[{"name": "run", "arguments": {"a": "<|tool_call|>[{\\"name\\": \\"search\\"}]"}}]<|/tool_call|>',
        run(a='<|tool_call|>[{"name": "search"}]'),
    ),
    ('<|tool_call|>[{"name": "run", "arguments": {"code": "if x:\n\tf({})"}}]', run(code="if x:\n\tf({})")),
    ('<|tool_call|>[{"name": "run", "arguments": {"ü": "Zürich 🌧 北京"}}]<|/tool_call|>', run(ü="Zürich 🌧 北京")),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": "\\u00fc\\ud83c\\udf27"}}]<|/tool_call|>', run(a="ü🌧")),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": -1.5e3, "b": null}}]<|/tool_call|>', run(a=-1500.0, b=None)),
    # behind "functools"
    (f"functools[{PARIS_TEXT}]", PARIS),
    (f"functools[{TWO_TEXT}]", TWO),
    (f"functools [ {PARIS_TEXT} ]", PARIS),
    (f"I will look. functools[{PARIS_TEXT}] Done.", PARIS),
    (f"functools[{PARIS_TEXT}]\nfunctools[{PARIS_TEXT}]", PARIS * 2),
    ('functools[{"name": "run", "arguments": {"a": ["]"], "c": "functools[{"}}]', run(a=["]"], c="functools[{")),
    ('functools[{"name": "run", "arguments": "{\\"a\\": 1}"}]', run(a=1)),
    # bare, where an engine leaves markers out
    (f"[{PARIS_TEXT}]", PARIS),
    (PARIS_TEXT, PARIS),
    (f" \n[{PARIS_TEXT}]\n", PARIS),
    (f"[{TWO_TEXT}]", TWO),
    (f"[{PARIS_TEXT}][{PARIS_TEXT}]", PARIS * 2),
    (f"```json\n[{PARIS_TEXT}]\n```", PARIS),
    (f"I will look that up.\n[{PARIS_TEXT}]", PARIS),
    (f"[1] says so, and {{this}} too: [{PARIS_TEXT}]", PARIS),
    (f"[{PARIS_TEXT}]<|/tool_call|>", PARIS),
    (f"[Note] I look it up: [{PARIS_TEXT}]", PARIS),
    ('[{"name": "run", "arguments": {"a": "<|tool_call|>"}}]', run(a="<|tool_call|>")),
    ('[{"name": "run", "arguments": "{\\"a\\": 1}"}]', run(a=1)),
]  # fmt: skip

TEXT = [
    "",
    "It is sunny in Paris.",
    "I do not know.",
    "<|/tool_call|>",
    "tool_call: get_weather",
    "functools[lru_cache] caches what functions return.",
    "functools[]",
    "functools[ This is just text ]",
    "my_functools[1]",
    "[1, 2, 3]",
    "[]",
    "{}",
    "[[[",
    '{"weather": "sunny"}',
    '[{"name": "Bob", "arguments": "many"}]',  # nobody of that name is on offer
    '[{"name": "get_weather"}]',  # bare, and without arguments
    f"[{PARIS_TEXT}] would be the call.",
    f"Write [{PARIS_TEXT}], then read.",
    f'{{"example": [{PARIS_TEXT}]}}',
    f"[{PARIS_TEXT}, 1]",
    json.dumps([f"[{PARIS_TEXT}]"]),
    # a tool's description, which the model sometimes repeats
    '{"name": "get_weather", "description": "Weather.", "parameters": {"city": {"type": "str"}}}',
    json.dumps({"note": f"<|tool_call|>[{PARIS_TEXT}]<|/tool_call|>"}),
    '[See "get_weather"] for more',
    "[" * 5000,
    '{"a":' * 3000,
]

INVALID = [
    ("<|tool_call|>", "cut off"),
    ("<|tool_call|><|/tool_call|>", "not JSON"),
    ("<|tool_call|>[]<|/tool_call|>", "empty"),
    ('<|tool_call|>[{"name": "get_weather", "arguments": {"ci', "cut off"),
    ('<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Paris"}', "cut off"),
    ("<|tool_call|>[{'name': 'get_weather', 'arguments': {}}]<|/tool_call|>", "not JSON"),
    ("<|tool_call|>get_weather(city='Paris')<|/tool_call|>", "not JSON"),
    ('<|tool_call|>[{"name": 1, "arguments": {}}]<|/tool_call|>', '"name" and "arguments"'),
    ('<|tool_call|>["get_weather"]<|/tool_call|>', '"name" and "arguments"'),
    ('<|tool_call|>[[{"name": "run"}]]<|/tool_call|>', '"name" and "arguments"'),
    ('<|tool_call|>[{"name": "run", "arguments": [1]}]<|/tool_call|>', "not an object"),
    ('<|tool_call|>[{"name": "run", "arguments": "[1]"}]<|/tool_call|>', "not an object"),
    ('<|tool_call|>[{"name": "run", "arguments": "{} {}"}]<|/tool_call|>', "more than one"),
    ('<|tool_call|>[{"name": "run", "arguments": "a=1"}]<|/tool_call|>', "not JSON"),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": NaN}}]<|/tool_call|>', "NaN"),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": "\\ud800"}}]<|/tool_call|>', "not JSON"),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": ' + "9" * 5000 + "}}]", "not JSON"),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": ' + "[" * 200 + "]" * 200 + "}}]", "levels deep"),
    ("<|tool_call|>" + "[" * 100000, "not JSON"),
    ('<|tool_call|>{"name": "run", "description": "Runs.", "parameters": {}}<|/tool_call|>', "description of a tool"),
    ('functools[{"name": "get_weather", "arguments": {"city": "Pa', "cut off"),
    ('[{"name": "get_weather", "arguments": {"city": "Pa', "cut off"),
    ('```json\n[{"name": "get_weather", "arguments": {"city": "Pa', "cut off"),
]


@pytest.mark.parametrize(("answer", "expected"), READ, ids=range(len(READ)))
def test_calls_are_read(answer: str, expected: list[ToolCall]) -> None:
    assert parse(answer, NAMES) == expected


@pytest.mark.parametrize("answer", TEXT, ids=range(len(TEXT)))
def test_text_is_no_call(answer: str) -> None:
    assert parse(answer, NAMES) == []


@pytest.mark.parametrize(("answer", "message"), INVALID, ids=range(len(INVALID)))
def test_what_is_meant_as_a_call_and_is_none(answer: str, message: str) -> None:
    with pytest.raises(CallError, match=message):
        parse(answer, NAMES)


QUOTED = [  # single quotation marks stand for the brackets of a marker that is only letters
    ("‹tool_call›[{PARIS}]", []),
    ("It says ‹tool_call›[{PARIS}]<|/tool_call|>", []),
    ("It says ‹tool_call›functools[{PARIS}]", []),
    ("It says ‹tool_call› and then [{PARIS}]", []),
    ("‹tool_call›‹tool_call›[{PARIS}]", []),
    ("‹tool_call›[{PARIS}", []),
    ("‹tool_call›[1] <|tool_call|>[{PARIS}]", PARIS),
    ("<|tool_call|>[{PARIS}]<|/tool_call|> as in ‹tool_call›[{RUN}]", PARIS),
    ("[{PARIS}] ‹tool_call›", []),
    ('<|tool_call|>[{"name": "run", "arguments": {"a": "‹tool_call›"}}]', run(a="<|tool_call|>")),
    ('[{"name": "run", "arguments": {"a": "‹tool_call›"}}]', run(a="<|tool_call|>")),
]


@pytest.mark.parametrize(("answer", "expected"), QUOTED, ids=range(len(QUOTED)))
def test_letters_of_the_marker_begin_no_call(answer: str, expected: list[ToolCall]) -> None:
    answer = answer.replace("{PARIS}", PARIS_TEXT).replace("{RUN}", '{"name": "run", "arguments": {}}')
    answer = answer.replace("‹tool_call›", "‹|tool_call|›")
    quoted = [at for at in range(len(answer)) if answer.startswith("‹", at)]
    assert parse(answer.replace("‹", "<").replace("›", ">"), NAMES, quoted) == expected


def test_the_table_is_long_enough() -> None:
    assert len(READ) + len(TEXT) + len(INVALID) >= 40


# ------------------------------------------------------------------------------------------------------ fuzzing

MARKS = [
    "<|tool_call|>",
    "<|/tool_call|>",
    "functools",
    "```json",
    *'[]{}":,\\ \n',
    "null",
    "-1e5",
    "NaN",
    "é",
    PARIS_TEXT,
]
KEYS = ['"name"', '"get_weather"', '"arguments"', '"parameters"', '"description"', '"function"']
PIECES = st.sampled_from(MARKS + KEYS)
SOUP = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), VALUES, max_size=4)
PROSE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[{`f"), max_size=40)


@settings(max_examples=1000, deadline=None)
@given(SOUP)
def test_nothing_crashes_and_every_call_is_written_in_the_answer(answer: str) -> None:
    try:
        calls = parse(answer, NAMES)
    except CallError as error:
        assert str(error)
        return
    decoded = answer.encode("utf-8", "replace").decode()
    for call in calls:
        assert json.dumps(call.name, ensure_ascii=False).encode("utf-8", "replace").decode() in decoded
        json.dumps(call.arguments, ensure_ascii=False).encode()
    assert (
        not calls
        or "<|tool_call|>" in answer
        or "functools" in answer
        or PARIS_TEXT in answer
        or "get_weather" in answer
    )


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300).filter(lambda text: "<|tool_call|>" not in text and "functools" not in text))
def test_without_a_marker_or_a_name_on_offer_there_is_never_a_call(answer: str) -> None:
    assert parse(answer, ["a name that is not in it"]) == []


@settings(max_examples=500, deadline=None)
@given(st.lists(ARGUMENTS, min_size=1, max_size=3), PROSE, PROSE, st.booleans(), st.booleans(), st.booleans())
def test_any_arguments_come_back_as_they_were(
    arguments: list[dict[str, Any]], before: str, after: str, ascii_only: bool, as_text: bool, functools: bool
) -> None:
    calls = [ToolCall("run", each) for each in arguments]
    written = [json.dumps(each, ensure_ascii=ascii_only) if as_text else each for each in arguments]
    block = json.dumps([{"name": "run", "arguments": each} for each in written], ensure_ascii=ascii_only)
    assert parse(f"{before}<|tool_call|>{block}<|/tool_call|>{after}", NAMES) == calls
    assert parse(f"{before} {block}\n", NAMES) == calls
    if functools:
        assert parse(f"{before} functools{block}{after}", NAMES) == calls


@settings(max_examples=300, deadline=None)
@given(ARGUMENTS, st.integers(1, 200))
def test_a_call_that_is_cut_off_is_never_carried_out(arguments: dict[str, Any], cut: int) -> None:
    block = json.dumps([{"name": "run", "arguments": arguments}])
    cut = 1 + cut % (len(block) - 1)
    with pytest.raises(CallError):
        parse("<|tool_call|>" + block[:cut], NAMES)


def test_calls_are_found_wherever_they_are_mentioned() -> None:
    inside = json.dumps({"note": json.dumps([{"name": "run", "arguments": {"a": 1}}])})
    told = {"result": [f"see <|tool_call|>[{PARIS_TEXT}]<|/tool_call|>", {"deep": inside}]}
    assert sorted(call.name for call in mentioned(told, NAMES)) == ["get_weather", "run"]
    assert mentioned({"result": "{{{ nothing [{"}, NAMES) == []
