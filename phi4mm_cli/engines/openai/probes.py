"""A second of silence and a small grey picture, to learn whether a server takes such things."""

from __future__ import annotations

from base64 import b64encode

from phi4mm_cli.engines.openai.wire import Medium
from phi4mm_cli.schema import Clip, Message, Picture, Request, Sampling, Source

_NOWHERE = Source("", 0, "")
_SIDE = 224  # pixels


def probe(of_pictures: bool) -> tuple[Request, Medium]:
    """A request for one token, and what is seen or heard in it."""
    part = Picture(_NOWHERE) if of_pictures else Clip(_NOWHERE, 0.0, 1.0)
    medium = _picture() if of_pictures else _sound()
    return Request((Message("user", (part, "What is this?")),), Sampling(1)), medium


def _picture() -> Medium:
    from PIL import Image

    from phi4mm_cli.media.encode import png

    return Medium("image", b64encode(png(Image.new("RGB", (_SIDE, _SIDE), "grey"))).decode())


def _sound() -> Medium:
    import numpy as np

    from phi4mm_cli.media.encode import wav

    return Medium("audio", b64encode(wav(np.zeros(16000, np.float32), 16000)).decode())
