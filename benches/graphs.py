"""graphs.py WEIGHTS [--fourstep PROGRAM] [--device cuda:0] [--size 512] [--dtype f16]: what CUDA graphs make of the UNet's calls.

Draws eight pictures with and without them. Prints what the last four pictures' calls took, and how far the furthest number of any
picture is off in levels of 255; ends with 1 where that is more than eight, which leaves room for another order of sums in half
precision. Needs numpy and Pillow.
"""
import argparse
import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
PICTURES = 8


def draw(arguments, *more):
    with tempfile.TemporaryDirectory() as folder:
        command = [
            arguments.fourstep, "generate", "--weights", arguments.weights, "--prompt", "a lighthouse in a storm", "--timings",
            "--width", str(arguments.size), "--height", str(arguments.size), "--dtype", arguments.dtype, "--seed", "1",
            "--device", arguments.device, "--num-outputs", str(PICTURES), "--out", f"{folder}/picture.png", *more,
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        steps = json.loads(done.stdout)["steps_s"]
        pictures = [numpy.asarray(Image.open(path).convert("RGB"), dtype=int) for path in sorted(glob.glob(f"{folder}/*.png"))]
    return statistics.median(steps[len(steps) // 2:]), numpy.stack(pictures)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--fourstep", default=os.path.join(ROOT, "target", "release", "fourstep"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--dtype", default="f16")
    arguments = parser.parse_args()
    made, expected = draw(arguments, "--no-cuda-graphs")
    played, found = draw(arguments)
    off = abs(found - expected).max()
    print(f"UNet call, median: {1000 * made:.1f} ms without graphs, {1000 * played:.1f} ms with; pictures differ by {off} levels at most")
    sys.exit(int(off > 8))


if __name__ == "__main__":
    main()
