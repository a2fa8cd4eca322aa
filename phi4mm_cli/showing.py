"""How pictures are shown to the model: in how many crops each, so that all of them fit, and what that costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from phi4mm_cli.errors import InputError
from phi4mm_cli.model.grid import MOST_CROPS, Layout, layout_of
from phi4mm_cli.schema import Picture

MOST_PICTURES = 64  # in one prompt: the model card
MOST_CROPS_TOGETHER = 64  # of all pictures of a prompt, the views of the whole not counted: so the model was trained


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as the model is shown it."""

    picture: Picture
    size: tuple[int, int]  # its own width and height in pixels
    layout: Layout
    is_reduced: bool  # it is shown smaller than alone, for the others to fit

    @property
    def tokens(self) -> int:
        """How many positions of the prompt it takes."""
        return self.layout.tokens


def shown(pictures: Sequence[Picture], room: int, most_crops: int = MOST_CROPS) -> tuple[Shown, ...]:
    """The pictures of one prompt, in as many crops each as `room` tokens hold and the model knows together.

    One that needs fewer crops leaves them to the others. Raises InputError where a picture cannot be read or is too
    narrow, where they are more than the model takes, and where there is no room even for one crop of each.
    """
    if len(pictures) > MOST_PICTURES:
        message = f"{len(pictures)} pictures are more than the model takes at once, {MOST_PICTURES}"
        raise InputError(message, "Show it fewer.")
    from phi4mm_cli.media import document

    sizes = [document.shown_size(picture) for picture in pictures]
    alone = [layout_of(*size, most_crops) for size in sizes]
    for most in range(most_crops, 0, -1):
        layouts = [layout_of(*size, most) for size in sizes]
        crops, tokens = sum(one.columns * one.rows for one in layouts), sum(one.tokens for one in layouts)
        if crops <= MOST_CROPS_TOGETHER and tokens <= room:
            return tuple(
                Shown(replace(picture, most_crops=most), size, layout, layout.width < full.width)
                for picture, size, layout, full in zip(pictures, sizes, layouts, alone, strict=True)
            )
    message = f"the pictures take {tokens} tokens at least, and there is room for {max(0, room)}"
    raise InputError(message, "Show the model fewer of them, or ask for a shorter answer.")
