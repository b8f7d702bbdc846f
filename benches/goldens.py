"""goldens.py [--fourstep PROGRAM] [--device cuda:0] [--dtypes f32,f16]: are the pictures of a device diffusers'?

Draws the pictures of `tests/fixtures/pipeline/images`, which diffusers drew in f32 on a CPU: all schedulers, from text and
from an image, with guidance and without. Prints how far the furthest number is off in levels of 255, and the mean; ends with 1
where f32 is off by more than two levels, which leaves room for another order of sums. Needs numpy and Pillow.
"""
import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FIXTURES = os.path.join(ROOT, "tests", "fixtures", "pipeline")
PROMPT = "a photo! of the man and his cats, it's \U0001f642"
# As tests/pipeline/images.rs has it.
KINDS = {
    "text": ["--width", "48", "--height", "64", "--num-inference-steps", "4"],
    "image": [
        "--width", "56", "--height", "80", "--num-inference-steps", "5", "--prompt-strength", "0.7",
        "--image", os.path.join(FIXTURES, "images", "start.png"),
    ],
}
GUIDANCE = {"plain": [], "guided": ["--guidance-scale", "7.5", "--negative-prompt", "low quality"]}
SCHEDULERS = ["DDIM", "DPMSolverMultistep", "HeunDiscrete", "KarrasDPM", "K_EULER_ANCESTRAL", "K_EULER", "PNDM", "DPM++2MSDE"]


def model(folder):
    """The tiny model, with a VAE that overflows in half precision as SDXL's does, by its configuration."""
    shutil.copytree(os.path.join(FIXTURES, "tiny"), folder)
    path = os.path.join(folder, "vae", "config.json")
    with open(path) as file:
        config = json.load(file)
    with open(path, "w") as file:
        json.dump({**config, "force_upcast": True}, file)
    return folder


def draw(program, weights, device, dtype, arguments, out):
    command = [
        program, "generate", "--weights", weights, "--prompt", PROMPT, "--seed", "1234",
        "--device", device, "--dtype", dtype, *arguments, "--out", out,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return numpy.asarray(Image.open(out).convert("RGB"), dtype=int)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--fourstep", default=os.path.join(ROOT, "target", "release", "fourstep"))
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtypes", default="f32,f16")
    arguments = parser.parse_args()
    is_right = True
    dtypes = arguments.dtypes.split(",")
    print("| picture | " + " | ".join(f"{dtype}: most, mean" for dtype in dtypes) + " |")
    print("| --- |" + " --- |" * len(dtypes))
    pictures = {
        f"{scheduler}.{kind}.{guidance}": ["--scheduler", scheduler, *KINDS[kind], *GUIDANCE[guidance]]
        for scheduler in SCHEDULERS for kind in KINDS for guidance in GUIDANCE
    }
    # Most of the time goes into starting programs, several of which a GPU has room for.
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(4) as pool:
        start = (draw, arguments.fourstep, model(f"{folder}/model"), arguments.device)
        drawn = {
            (name, dtype): pool.submit(*start, dtype, options, f"{folder}/{name}.{dtype}.png")
            for name, options in pictures.items() for dtype in dtypes
        }
        for name in pictures:
            expected = numpy.asarray(Image.open(os.path.join(FIXTURES, "images", f"{name}.png")).convert("RGB"), dtype=int)
            cells = []
            for dtype in dtypes:
                off = abs(drawn[name, dtype].result() - expected)
                cells.append(f"{off.max()}, {off.mean():.3f}")
                is_right &= dtype != "f32" or off.max() <= 2
            print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
