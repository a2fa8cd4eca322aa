"""The languages of the model, by ISO 639-1 code and English name."""

from __future__ import annotations

from collections.abc import Iterable

from phi4mm_cli.errors import UsageError

# What the model hears, as its card lists it.
AUDIO = {
    "en": "English",
    "zh": "Chinese",
    "de": "German",
    "fr": "French",
    "it": "Italian",
    "ja": "Japanese",
    "es": "Spanish",
    "pt": "Portuguese",
}
# What it reads and writes, as its card lists it.
TEXT = AUDIO | {
    "ar": "Arabic",
    "cs": "Czech",
    "da": "Danish",
    "fi": "Finnish",
    "he": "Hebrew",
    "hu": "Hungarian",
    "ko": "Korean",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "ru": "Russian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
}
AUTO = "auto"
OR_AUTO = "; or give 'auto'"
_UNSPACED = frozenset({"zh", "ja"})


def audio_code(language: str) -> str | None:
    """The code of a language given by code or name, None for `auto`. Raises UsageError with the list otherwise."""
    return None if _is_auto(language) else _code(language, AUDIO, "the model does not hear", "It hears", OR_AUTO)


def text_code(language: str) -> str | None:
    """The same for a language that the model reads or writes."""
    return None if _is_auto(language) else _code(language, TEXT, "the model does not write", "It writes", OR_AUTO)


def caption_code(language: str) -> str | None:
    """The same for the language of captions, which no model need know."""
    return None if _is_auto(language) else _code(language, TEXT, "phi4mm does not know", "It knows", OR_AUTO)


def target_code(language: str) -> str:
    """The code of a language to translate into. Raises UsageError with the list otherwise, and for `auto` too."""
    return _code(language, TEXT, "the model does not write", "It writes")


def joined(sentences: Iterable[str], language: str) -> str:
    """Sentences one after the other, as they are written in `language`, a code."""
    return ("" if language in _UNSPACED else " ").join(sentence for sentence in sentences if sentence)


def _is_auto(language: str) -> bool:
    return language.strip().lower() == AUTO


def _code(language: str, languages: dict[str, str], fault: str, advice: str, otherwise: str = "") -> str:
    wanted = language.strip().lower()
    for code, name in languages.items():
        if wanted in (code, name.lower()):
            return code
    known = ", ".join(f"{code} ({name})" for code, name in languages.items())
    raise UsageError(f"{fault} the language '{language}'", f"{advice} {known}{otherwise}")
