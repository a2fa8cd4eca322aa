"""`python -m phi4mm_cli.demo.world` prints all that the demo knows, in Markdown: the text of WORLD.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from phi4mm_cli.demo.world import conversations, documents, lexicon, pictures, prompts, scenes, sentences, tools
from phi4mm_cli.demo.world.lexicon import LANGUAGES, NAMES, Phrase

LISTS: dict[str, Iterable[Phrase]] = {
    "name, other": lexicon.PEOPLE,
    "city": lexicon.CITIES,
    "day": lexicon.DAYS,
    "month": lexicon.MONTHS,
    "unit": lexicon.UNITS,
    "place": lexicon.PLACES,
    "food": lexicon.FOODS,
    "family": lexicon.FAMILY,
    "job": lexicon.JOBS,
    "shop": lexicon.SHOPS,
    "weather": lexicon.WEATHER,
    "thing": [thing.one for thing in lexicon.THINGS],
    "things": [thing.many for thing in lexicon.THINGS],
    "color": [color.masculine for color in lexicon.COLORS],
    "number": [{code: lexicon.spell(number, code) for code in LANGUAGES} for number in lexicon.COUNTS],
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(cell.replace(chr(10), '<br>') for cell in row)} |" for row in rows)


def trilingual(phrases: Iterable[Phrase]) -> Iterator[str]:
    """A table with a column for each language."""
    rows = [[phrase[code] for code in LANGUAGES] for phrase in phrases]
    return table([NAMES[code] for code in LANGUAGES], rows)


def lines() -> Iterator[str]:
    """The lines of WORLD.md."""
    yield "# The demo's world"
    yield ""
    yield "All that the demo's training teaches, printed by `python -m phi4mm_cli.demo.world`; what a checkpoint knows"
    yield "of it is in its card, README.md. Numbers are spoken and transcribed in words."
    yield from ("", "## Sentences", "")
    yield from trilingual(sentences.TEMPLATES)
    yield from ("", "## What stands in the braces", "")
    for name, phrases in LISTS.items():
        listed = (", ".join(phrase[code] for phrase in phrases) for code in LANGUAGES)
        yield f"- `{name}`: {' / '.join(dict.fromkeys(listed))}"
    yield "- `hour`: two to twelve; `digits`: three to six single digits"
    yield from ("", "## Stories and their summary", "")
    yield from trilingual([*documents.STORY, documents.GIST])
    yield from ("", "## Instructions", "")
    yield from (f"- `{prompt.strip()}`" for prompt in prompts.all_prompts())
    yield from ("", "## Questions", "")
    yield from table(("Question", "Answer"), ([asked, reply["en"]] for asked, reply in conversations.facts()))
    yield ""
    yield "Sums and differences of numbers up to 20, products up to 9 times 9, in digits or words."
    yield "Anything else of the same forms: " + conversations.UNKNOWN["en"]
    yield from ("", "## Told in a chat, and asked for later", "")
    yield from table(("Told", "Asked", "Answered"), conversations.told())
    yield from ("", "## Tools", "")
    yield from table(
        ("Tool", "Arguments"), ([f"`{name}`", ", ".join(tool["parameters"])] for name, tool in tools.TOOLS.items())
    )
    yield from ("", "## Pictures", "")
    yield f"- Shapes: {', '.join(scenes.SHAPES)}; in {', '.join(scenes.TINTS)}; {', '.join(scenes.SPOTS)}."
    yield f"- `{scenes.DESCRIBE}` `{scenes.DIFFERENCE}` `{scenes.MOTION}` `{scenes.HIGHEST}` `{scenes.LOWEST}`"
    yield "- How many shapes, circles or red shapes there are (`A red circle at the top, a red star on the left: 2.`);"
    yield "  what color a shape is; which shape is red; where it is (`The red circle is at the top.`); what is there."
    yield "- Of three pictures what each shows, whether it is the first one's, and which differs"
    yield "  (`A red star, a red circle is different, a red star is not: image 2.`)."
    yield "- Pages in one font of 23 to 30 pixels, in at most 2 x 2 crops: a sentence; a heading and sentences; a table"
    yield f"  of two columns; a receipt. Figures stand apart, {pictures.FIGURE:.0f} pixels each."


if __name__ == "__main__":
    print("\n".join(lines()))
