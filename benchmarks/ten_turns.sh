#!/usr/bin/env bash
# A conversation of ten turns, typed at `phi4mm chat` in tmux at 80 columns and 30 lines, to be looked at:
#
#     bash benchmarks/ten_turns.sh FOLDER [OPTION...]
#
# OPTIONs are those of the command; without any it is `--model demo --no-private`. There are a picture, a recording, an answer that
# is interrupted, an undo, a save and a load. All that was to be seen is in FOLDER/screen.txt, what is behind the screen
# included. A model that sees nothing is told to forget the picture.
set -eu

folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
[ $# -gt 0 ] || set -- --model demo --no-private
python=${PYTHON:-python}
terminal="phi4mm-ten-turns-$$"

"$python" - "$folder" <<'PYTHON'
import random
import sys
from pathlib import Path

import soundfile

from phi4mm_cli.demo.voice import speak
from phi4mm_cli.demo.world.pictures import draw_scene
from phi4mm_cli.demo.world.scenes import Item

folder = Path(sys.argv[1])
draw_scene((Item("circle", "red", 3), Item("star", "blue", 5)), random.Random(3)).image.save(folder / "scene.png")
soundfile.write(folder / "question.wav", speak("What is the capital of France?").samples, 16000)
PYTHON
rm -f "$folder/kept.jsonl"

tmux -L "$terminal" new-session -d -s "$terminal" -x 80 -y 30 -c "$folder" "$python" -m phi4mm_cli chat --no-history "$@"
tmux -L "$terminal" set-option -t "$terminal" history-limit 10000 > /dev/null
tmux -L "$terminal" set-option -t "$terminal" remain-on-exit on > /dev/null
trap 'tmux -L "$terminal" kill-server' EXIT

screen() { tmux -L "$terminal" capture-pane -p -S - -t "$terminal"; }

# Whether the prompt is there, with nothing typed behind it.
is_ready() { screen | grep -v '^ *$' | tail -n 1 | grep -Eq '^(\[.*\] )?>$'; }
await() { until is_ready; do sleep 0.5; done; }
type_in() {
    tmux -L "$terminal" send-keys -t "$terminal" -l -- "$1"
    tmux -L "$terminal" send-keys -t "$terminal" Enter
    sleep 1
}
say() { type_in "$1"; await; }

await
say "My name is Alice."
say "What is two plus three?"
type_in '"""Repeat the text.'
type_in 'Oscar forgot the letter. I see a yellow bicycle. The meeting is in Paris. I like tea and bread. Oscar has a dog."""'
until screen | grep -q '^Oscar' || is_ready; do sleep 0.1; done
tmux -L "$terminal" send-keys -t "$terminal" C-c
await
say "What color is the sky?"
say "/undo"
say "Which day comes after Monday?"
say "/image scene.png"
say "What is shown in this image?"
if screen | grep -q "cannot take pictures"; then say "/undo"; fi
say "How many shapes are there?"
say "/tokens"
say "/save kept.jsonl"
say "/reset"
say "What is my name?"
say "/load kept.jsonl"
say "What is my name?"
say "/audio question.wav"
say ""
say "Thank you."
say "/help"
tmux -L "$terminal" send-keys -t "$terminal" C-d
sleep 3
screen > "$folder/screen.txt"
cat "$folder/screen.txt"
