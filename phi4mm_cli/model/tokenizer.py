"""Reads a checkpoint's tokenizer, without its weights and without torch."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from phi4mm_cli.errors import MissingError
from phi4mm_cli.model.folder import AGAIN, in_a_line, read_json


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer, for which "<|end|>" in a user's text is text, and so is every other control token.

    Raises MissingError where there is none that can be read.
    """
    path = folder / "tokenizer.json"
    content = read_json(path)
    try:
        for token in content["added_tokens"]:
            token["special"] |= token["content"].startswith("<|")  # or texts could not be kept from naming it
    except (AttributeError, KeyError, TypeError) as error:
        raise MissingError(f"{path} is no tokenizer: {in_a_line(error)}", AGAIN) from error
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the tokenizers library has no narrower class
        raise MissingError(f"{path} is no tokenizer: {in_a_line(error)}", AGAIN) from error
    tokenizer.encode_special_tokens = True
    return tokenizer
