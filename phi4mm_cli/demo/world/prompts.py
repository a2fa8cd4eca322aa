"""The instructions that the demo is trained on: those of the model card, and for summaries and pages one of our own."""

from __future__ import annotations

from phi4mm_cli import prompt, reading
from phi4mm_cli.demo.world import documents, lexicon, scenes
from phi4mm_cli.flows import transcribe, translate

TRANSCRIBE = transcribe.PROMPT
TRANSCRIBE_IN = transcribe.LANGUAGE_PROMPT.replace("{language}", "{}")
TRANSLATE = translate.PROMPT.replace("{language}", "{}")
TRANSLATE_COT = translate.BOTH_PROMPT.replace("{language}", "{}")
SEPARATOR = prompt.SEPARATOR
SUMMARIZE = "Summarize the audio clip in one sentence."
TERMS = transcribe.TERMS

DESCRIBE = scenes.DESCRIBE
READ = reading.PROMPT
SUMMARIZE_IMAGES = "Summarize the content of the images."


def all_prompts() -> list[str]:
    """Every fixed instruction, for the tokenizer."""
    names = [lexicon.NAMES[language] for language in lexicon.LANGUAGES]
    forms = (TRANSCRIBE_IN, TRANSLATE, TRANSLATE_COT, documents.TRANSLATE_TEXT)
    fixed = [TRANSCRIBE, f" {SEPARATOR} ", SUMMARIZE, TERMS.format("Alice, Bob"), DESCRIBE, READ, SUMMARIZE_IMAGES]
    fixed += [scenes.DIFFERENCE, scenes.MOTION, scenes.HIGHEST, scenes.LOWEST]
    fixed += [documents.SUMMARIZE_TEXT, documents.REPEAT_TEXT]
    return fixed + [form.format(name) for form in forms for name in names]
