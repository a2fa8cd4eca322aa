"""Text on the screen: how much of it, for how long, and where its lines break; made, checked and mended."""

from phi4mm_cli.captions.arrange import Caption, from_segments
from phi4mm_cli.captions.presets import PRESETS, Preset, PresetName

__all__ = ["PRESETS", "Caption", "Preset", "PresetName", "from_segments"]
