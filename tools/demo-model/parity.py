"""parity.py MODEL [--binary fourstep]: how far fourstep's pictures are from diffusers', in levels of 255."""
import argparse
import subprocess
import tempfile

import numpy as np
from PIL import Image

import reference

CASES = [
    ("a red circle on a blue background", 256, 256, "K_EULER", 4, 0.0),
    ("a small yellow star above a green square", 256, 256, "K_EULER", 4, 0.0),
    ("a white moon at night!", 256, 384, "K_EULER", 4, 0.0),
    ("blue backdrop with one red disc", 256, 256, "K_EULER", 4, 3.0),
    ("a big purple heart on a pink striped background", 256, 256, "DDIM", 6, 0.0),
    ("green checkerboard with a huge orange star", 256, 256, "DPMSolverMultistep", 8, 0.0),
    ("a cyan ring on a black checkered background", 256, 256, "HeunDiscrete", 4, 0.0),
    ("a pink square to the left of a blue circle", 256, 256, "KarrasDPM", 8, 0.0),
    ("a large orange star on a green striped background", 512, 512, "K_EULER", 4, 0.0),
    ("a yellow moon over a white ring at night", 512, 384, "PNDM", 6, 0.0),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--binary", default="target/release/fourstep")
    arguments = parser.parse_args()
    print("| prompt | size | scheduler | steps | guidance | largest difference | mean |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed, (prompt, width, height, scheduler, steps, guidance) in enumerate(CASES, 1234):
            path = f"{folder}/picture.png"
            command = [arguments.binary, "generate", "--weights", arguments.model, "--prompt", prompt, "--width", width,
                       "--height", height, "--num-inference-steps", steps, "--guidance-scale", guidance,
                       "--scheduler", scheduler, "--seed", seed, "--out", path]
            subprocess.run([str(part) for part in command], check=True, stderr=subprocess.DEVNULL)
            ours = np.asarray(Image.open(path).convert("RGB"), np.int16)
            pipe = reference.pipeline(arguments.model, scheduler)
            theirs = np.asarray(reference.draw(pipe, prompt, seed, width, height, steps, guidance), np.int16)
            off = np.abs(ours - theirs)
            print(f"| {prompt} | {width} x {height} | {scheduler} | {steps} | {guidance} | {off.max()} | {off.mean():.4f} |")


if __name__ == "__main__":
    main()
