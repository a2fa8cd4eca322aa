"""What a server has, by its list of models: the base model, and the adapters that name it as their parent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from phi4mm_cli.engines.openai.wire import Family, Json, Served
from phi4mm_cli.errors import MissingError, UsageError
from phi4mm_cli.model.checkpoint import DEFAULT_MODEL
from phi4mm_cli.model.layout import ADAPTERS
from phi4mm_cli.schema import Profile

SIGNS = ("phi-4-multimodal", "phi4mm", "phi-4-mm", "phi4-multimodal")
MOST_NAMED = 8  # models, in a message
LONGEST_OF_VLLM = 599.0  # seconds: its VLLM_MAX_AUDIO_DECODE_DURATION_S is 600 unless told otherwise


def named(asked: Iterable[str]) -> dict[str, str]:
    """What `--served` says: speech=NAME and vision=NAME. Raises UsageError."""
    names: dict[str, str] = {}
    for item in asked:
        skill, separator, name = item.partition("=")
        if skill not in ADAPTERS or not separator or not name:
            raise UsageError(f"--served takes speech=NAME or vision=NAME, not '{item}'")
        if skill in names:
            raise UsageError(f"--served {skill}= is given twice", "Leave one out")
        names[skill] = name
    return names


def served(listing: Json, model: str, names: Mapping[str, str], where: str) -> Served:
    """The models of a server's `/v1/models` that phi4mm asks; `model` and `names` choose where there are several.

    Raises MissingError.
    """
    data = listing.get("data")
    entries = (
        [e for e in data if isinstance(e, dict) and isinstance(e.get("id"), str)] if isinstance(data, list) else []
    )
    bases = [entry for entry in entries if not entry.get("parent")]
    base = _base(bases, model, where)
    family = _family(base)
    own: dict[str, Any] = {skill: name for skill in ADAPTERS if (name := _adapter(entries, base, skill))}
    if family is not Family.VLLM and not own:  # its adapters, if it has any, are its own affair
        own = dict.fromkeys(ADAPTERS, base["id"])
    context, told = base.get("max_model_len"), base.get("profile")
    length = context if isinstance(context, int) and context > 0 else None
    profile = _profile(told if isinstance(told, dict) else {}, length, family)
    return Served(family, base["id"], **(own | dict(names)), context=length, profile=profile)


def _base(bases: list[Json], model: str, where: str) -> Json:
    chosen = [entry for entry in bases if model in (entry["id"], entry.get("root"))]
    if not chosen and model == DEFAULT_MODEL:
        alike = [entry for entry in bases if any(sign in entry["id"].lower() for sign in SIGNS)]
        chosen = bases if len(bases) == 1 else alike
    if len(chosen) == 1:
        return chosen[0]
    names = ", ".join(entry["id"][:80] for entry in bases[:MOST_NAMED]) or "none"
    if not chosen and model != DEFAULT_MODEL:
        raise MissingError(f"{where} does not serve the model '{model}'", f"It serves {names}")
    raise MissingError(f"which model of {where} is meant is not clear", f"Name it with --model: it serves {names}")


def _family(base: Json) -> Family:
    owner = base.get("owned_by")
    return Family(owner) if owner in (Family.PHI4MM, Family.VLLM) else Family.OTHER


def _adapter(entries: list[Json], base: Json, skill: str) -> str | None:
    """The child of `base` whose name, or else whose folder, says that it is for `skill`."""
    children = [entry for entry in entries if entry.get("parent") in (base["id"], base.get("root"))]
    for field in ("id", "root"):
        for entry in children:
            if skill in str(entry.get(field)).rstrip("/").rpartition("/")[2].lower():
                return str(entry["id"])
    return None


def _profile(told: Mapping[str, Any], context: int | None, family: Family) -> Profile:
    """What phi4mm's own server says of its checkpoint, and what holds for the released model elsewhere."""
    usual = Profile()
    languages, notice = told.get("languages"), told.get("notice")
    longest = LONGEST_OF_VLLM if family is Family.VLLM else usual.longest_clip
    return Profile(
        max_chunk_seconds=_seconds(told.get("max_chunk_seconds"), usual.max_chunk_seconds),
        languages=tuple(map(str, languages)) if isinstance(languages, list) else usual.languages,
        notice=" ".join(str(notice).split())[:200] if notice else usual.notice,
        context=context or usual.context,
        longest_clip=_seconds(told.get("longest_clip"), longest),
    )


def _seconds(told: object, usual: float) -> float:
    return float(told) if isinstance(told, (int, float)) and told >= 1 else usual
