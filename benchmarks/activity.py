"""Voice activity, in seconds of sound a second on one thread: Silero frame by frame, and as phi4mm runs it.

    python benchmarks/activity.py [SECONDS]

The sound is the sample meeting, repeated. Prints how far the probabilities of the two forms of the model differ.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import soundfile

from phi4mm_cli.commands.sample import SAMPLES
from phi4mm_cli.media import activity

Array = npt.NDArray[np.float32]


def frame_by_frame(samples: Array) -> Array:
    """Probability of speech in each 512 samples, by the form of the model that takes one frame at a time."""
    spec = find_spec("silero_vad")
    if spec is None or spec.submodule_search_locations is None:
        raise SystemExit("pip install silero-vad")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = Path(spec.submodule_search_locations[0], "data", "silero_vad.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    state, context, found = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    for frame in samples.reshape(-1, 1, 512):
        inputs = {"input": np.hstack([context, frame]), "state": state, "sr": np.array(16000)}
        speech, state = session.run(None, inputs)
        context = frame[:, -64:]
        found.append(speech[0, 0])
    return np.array(found, np.float32)


def many_frames(samples: Array) -> Array:
    """The same by the form that takes many, in calls of the size that phi4mm makes."""
    stream = activity._Stream()
    frames = samples.reshape(-1, activity.FRAME)
    blocks = [frames[first : first + activity.BLOCK] for first in range(0, len(frames), activity.BLOCK)]
    return np.concatenate([stream.judge(block) for block in blocks])


def main() -> None:
    """Time each way once, after a short run that warms it up."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    meeting, _ = soundfile.read(SAMPLES / "meeting.flac", dtype="float32")
    samples = np.resize(meeting, seconds * 16000 // 512 * 512)
    results = {}
    for name, way in (
        ("frame by frame", frame_by_frame),
        ("many frames a call", many_frames),
        ("all of phi4mm's judging", lambda sound: [*activity.activity([sound], 16000)]),
    ):
        way(samples[: 512 * 32])
        began = time.perf_counter()
        results[name] = way(samples)
        took = time.perf_counter() - began
        print(f"{name:24} {took:6.2f} s  {seconds / took:6.0f} x real time")
    difference = np.abs(results["frame by frame"] - results["many frames a call"]).max()
    print(f"largest difference of a probability: {difference:.1e}")


if __name__ == "__main__":
    main()
