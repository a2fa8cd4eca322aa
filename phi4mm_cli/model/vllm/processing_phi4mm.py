"""The processor of a checkpoint in the original layout, for programs that take it from the checkpoint's folder.

It stands on modules of phi4mm, which are copied beside it, and on nothing else of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from phi4mm_cli.model.features import audio_tokens, log_mel
from phi4mm_cli.model.grid import layout_of
from phi4mm_cli.model.pixels import pixels

IMAGE_TOKEN, AUDIO_TOKEN = 200010, 200011
PLACEHOLDER = re.compile(r"<\|(image|audio)_\d+\|>|<\|(endoftext1[01])\|>")


@dataclass(frozen=True)
class Phi4MMImageProcessor:
    """Pictures to crops, in at most `dynamic_hd` of them."""

    dynamic_hd: int

    def find_closest_aspect_ratio(
        self, form: float, grids: Sequence[tuple[int, int]], width: int, height: int, side: int
    ) -> tuple[int, int]:
        """Columns and rows of crops for a picture that needs more of them than `grids` have."""
        layout = layout_of(width, height, max(columns * rows for columns, rows in grids))
        return layout.columns, layout.rows


@dataclass(frozen=True)
class Phi4MMAudioFeatureExtractor:
    """Sound to log-mel features."""

    sampling_rate: int = 16000


class Phi4MMProcessor(ProcessorMixin):
    """Text with `<|image_1|>` and `<|audio_1|>`, and the media in the order of these, to what the model takes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dynamic_hd: int) -> None:
        self.tokenizer = tokenizer
        self.image_processor = Phi4MMImageProcessor(dynamic_hd)
        self.audio_processor = Phi4MMAudioFeatureExtractor()

    @classmethod
    def from_pretrained(cls, folder: str, **settings: Any) -> Self:  # type: ignore[override]
        """The processor of the checkpoint in that folder."""
        tokenizer = settings.get("tokenizer") or PreTrainedTokenizerFast.from_pretrained(folder)
        own = json.loads((Path(folder) / "preprocessor_config.json").read_text(encoding="utf-8"))
        return cls(tokenizer, settings.get("dynamic_hd", own["dynamic_hd"]))

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any = None,
        audios: Sequence[tuple[Any, int]] | None = None,
        return_tensors: str = "pt",
        **settings: Any,
    ) -> BatchFeature:
        """One prompt and its media: `images` as of PIL, `audios` as samples in [-1, 1] and their rate.

        Gives `input_ids` (1, tokens); `input_image_embeds` (images, crops, 3, 448, 448) with `image_attention_mask`
        (images, crops, 32, 32) and `image_sizes` (images, 2), height and width; `input_audio_embeds` (clips, frames,
        80). What is shorter than the longest is filled with zeros.
        """
        found: dict[str, Any] = {"image_sizes": torch.zeros(0, 2, dtype=torch.int64)}  # vLLM looks for it in any case
        places: dict[str, list[int]] = {"image": [], "audio": []}
        if images is not None and len(images := list(images) if isinstance(images, (list, tuple)) else [images]):
            crops = [pixels(_rgb(image), self.image_processor.dynamic_hd) for image in images]
            places["image"] = [crop.tokens for crop in crops]
            found["input_image_embeds"] = _stacked([crop.values for crop in crops])
            found["image_attention_mask"] = _stacked([crop.mask.float() for crop in crops])
            found["image_sizes"] = torch.tensor([crop.size for crop in crops])
        if audios:
            features = [log_mel(np.asarray(samples, dtype=np.float32), rate) for samples, rate in audios]
            places["audio"] = [audio_tokens(len(frames)) for frames in features]
            found["input_audio_embeds"] = _stacked(features)
            found["audio_embed_sizes"] = torch.tensor(places["audio"])
        if text is not None:
            [prompt] = [text] if isinstance(text, str) else text
            found["input_ids"] = torch.tensor([self._tokens(prompt, places)])
            found["attention_mask"] = torch.ones_like(found["input_ids"])
        return BatchFeature(found)

    def _tokens(self, prompt: str, places: dict[str, list[int]]) -> list[int]:
        """The tokens of the prompt, with as many in the place of each medium as it takes."""
        left = {kind: iter(numbers) for kind, numbers in places.items()}
        tokens: list[int] = []
        end = 0
        for place in PLACEHOLDER.finditer(prompt):
            kind = place[1] or ("image" if place[2] == "endoftext10" else "audio")
            tokens += self.tokenizer.encode(prompt[end : place.start()], add_special_tokens=False)
            count = next(left[kind], None)
            if count is None:
                raise ValueError(f"the prompt has more {kind} placeholders than media")
            tokens += [IMAGE_TOKEN if kind == "image" else AUDIO_TOKEN] * count
            end = place.end()
        tokens += self.tokenizer.encode(prompt[end:], add_special_tokens=False)
        return tokens


def _rgb(image: Any) -> Image.Image:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
    return picture.convert("RGB")


def _stacked(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
