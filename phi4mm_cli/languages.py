"""The languages of the model, by ISO 639-1 code and English name."""

from __future__ import annotations

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
AUTO = "auto"


def audio_code(language: str) -> str | None:
    """The code of a language given by code or name, None for `auto`. Raises UsageError with the list otherwise."""
    wanted = language.strip().lower()
    if wanted == AUTO:
        return None
    for code, name in AUDIO.items():
        if wanted in (code, name.lower()):
            return code
    known = ", ".join(f"{code} ({name})" for code, name in AUDIO.items())
    raise UsageError(f"the model does not hear the language '{language}'", f"It hears {known}; or give 'auto'")
