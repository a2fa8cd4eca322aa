"""What the demo checkpoint is tested with: fresh questions within its world, as flows of the program, and the answers.

The sentences and conversations are those that training leaves out by their hash; every voice setting, noise and
picture is drawn anew.
"""

from phi4mm_cli.demo.exam.pictures import READING, SHAPES
from phi4mm_cli.demo.exam.speech import SPEECH
from phi4mm_cli.demo.exam.text import TEXT

SKILLS = (*SPEECH, *TEXT, *SHAPES, *READING)
