"""Text on the screen: how much of it, for how long, and where its lines break; made, checked and mended."""

from phi4mm_cli.captions.arrange import Caption, from_segments
from phi4mm_cli.captions.presets import PRESETS, Preset, PresetName
from phi4mm_cli.captions.rows import Pair, broken, of_pairs

__all__ = ["PRESETS", "Caption", "Pair", "Preset", "PresetName", "broken", "from_segments", "of_pairs"]
