"""The released vocabulary's special tokens, and how another one, such as the demo's, is moved to their ids."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from phi4mm_cli.errors import MissingError

SIZE = 200064  # rows of the embeddings
SPECIAL = {
    "<|endoftext|>": 199999,
    "<|endoftext10|>": 200010,
    "<|endoftext11|>": 200011,
    "<|endofprompt|>": 200018,
    "<|assistant|>": 200019,
    "<|end|>": 200020,
    "<|user|>": 200021,
    "<|system|>": 200022,
    "<|tool|>": 200023,
    "<|/tool|>": 200024,
    "<|tool_call|>": 200025,
    "<|/tool_call|>": 200026,
    "<|tool_response|>": 200027,
    "<|tag|>": 200028,
}
END_OF_TEXT, END_OF_TURN = SPECIAL["<|endoftext|>"], SPECIAL["<|end|>"]
IMAGE_TOKEN, AUDIO_TOKEN = SPECIAL["<|endoftext10|>"], SPECIAL["<|endoftext11|>"]

# The two tokens that stand for media have other names in the native layout.
NATIVE_NAMES = {"<|endoftext10|>": "<|image|>", "<|endoftext11|>": "<|audio|>"}
_ORIGINAL_NAMES = {native: original for original, native in NATIVE_NAMES.items()}


def native_tokenizer(text: str) -> str:
    """The native tokenizer.json for an original one; ids stay."""
    for original, native in NATIVE_NAMES.items():
        text = text.replace(json.dumps(original), json.dumps(native))
    return text


def original_tokenizer(text: str) -> tuple[str, dict[int, int]]:
    """The original tokenizer.json for a native one, and the new ids of the tokens that got another.

    All special tokens of the release are in it, at their ids there; other tokens keep theirs. Raises MissingError where
    two tokens would have one id.
    """
    tokenizer: dict[str, Any] = json.loads(text)
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    ids = vocabulary | {name: token["id"] for name, token in added.items()}
    new = {_ORIGINAL_NAMES.get(name, name): number for name, number in ids.items()} | SPECIAL
    require_room(new.values())
    moved = {number: new[_ORIGINAL_NAMES.get(name, name)] for name, number in ids.items()}
    # Special tokens stand in the vocabulary too: the tokenizers library numbers those that do not by itself.
    kept = {_ORIGINAL_NAMES.get(name, name) for name in vocabulary}
    tokenizer["model"]["vocab"] = {name: number for name, number in new.items() if name in kept or name in SPECIAL}
    others = [token for name, token in added.items() if _ORIGINAL_NAMES.get(name, name) not in SPECIAL]
    tokenizer["added_tokens"] = [*others, *map(special_token, SPECIAL)]
    return json.dumps(tokenizer, ensure_ascii=False), {old: now for old, now in moved.items() if old != now}


def special_token(name: str) -> dict[str, Any]:
    """A special token as tokenizer.json describes it. White space after role and end markers belongs to them."""
    number = SPECIAL[name]
    flags = {"single_word": False, "lstrip": False, "rstrip": number > SPECIAL["<|endofprompt|>"], "normalized": False}
    return {"id": number, "content": name, **flags, "special": True}


def moved_rows(rows: Tensor, moved: Mapping[int, int], media: tuple[int, ...]) -> Tensor:
    """Embeddings of shape (200064, hidden size) that have each of `rows` at its token's new id.

    Embeddings are output weights too, and a row of zeros would win wherever all tokens score below 0. So the rows that
    no token has are the mean of the others: its score is the mean of theirs, which never exceeds the best of them. The
    `media` tokens are left out of it, because they are left out of the choice of an answer's tokens.
    """
    numbers = [moved.get(row, row) for row in range(len(rows))]
    require_room(numbers)
    candidates = [row for row in range(len(rows)) if row not in media]
    mean = rows[candidates].float().mean(0).to(rows.dtype)
    result = mean.repeat(SIZE, 1)
    result[torch.tensor(numbers)] = rows
    return result


def require_room(ids: Collection[int]) -> None:
    """Raise MissingError unless the released vocabulary has room for tokens with these `ids`."""
    if len(ids) > SIZE or len(set(ids)) < len(ids) or max(ids) >= SIZE:
        message = f"the model's vocabulary leaves no room for the original layout's special tokens among {SIZE} ids"
        raise MissingError(message, "Such a model has no original layout")


# ---------------------------------------------------------------------------------------------------- small files

# As the model card shows prompts; tools are a JSON string in the system message. In the original layout a message is
# a string, and media are written into it.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}"
    "{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% elif part.type == 'image' %}{{ 'IMAGE' }}{% elif part.type == 'audio' %}{{ 'AUDIO' }}{% endif %}{% endfor %}"
    "{% endif %}{% if message.role == 'system' and message.tools %}{{ '<|tool|>' + message.tools + '<|/tool|>' }}"
    "{% endif %}{{ '<|end|>' }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)
# As released: content is a string, into which a server writes what stands for media.
TEXT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% if message.role == 'system' and message.tools %}{{ '<|tool|>' + message.tools + '<|/tool|>' }}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)
_CONTEXT = 131072


def chat_template(native: bool) -> str:
    """The Jinja template that makes a prompt of messages, with that layout's names for media."""
    image, audio = NATIVE_NAMES.values() if native else NATIVE_NAMES.keys()
    return _CHAT_TEMPLATE.replace("IMAGE", image).replace("AUDIO", audio)


def tokenizer_config(native: bool) -> dict[str, Any]:
    """tokenizer_config.json: what is not in tokenizer.json itself."""
    media = {"image_token": "<|image|>", "audio_token": "<|audio|>"} if native else {}
    ends = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>")
    return ends | {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is
        "chat_template": chat_template(native),
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": media,
        "model_max_length": _CONTEXT,
        "padding_side": "left",
    }


def special_tokens_map() -> dict[str, Any]:
    """The original special_tokens_map.json."""
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    token = {"content": "<|endoftext|>", **flags}
    return {"bos_token": token, "eos_token": token, "pad_token": "<|endoftext|>", "unk_token": token}


def added_tokens() -> dict[str, int]:
    """The original added_tokens.json: the special tokens that are not in its vocab.json."""
    return {name: number for name, number in sorted(SPECIAL.items()) if number > SPECIAL["<|endofprompt|>"]}
