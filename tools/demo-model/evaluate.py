"""evaluate.py MODEL [--binary fourstep | --diffusers] [--count 500] [--size 512x384] [--out FOLDER]: does it draw what
captions say?

Draws held-out captions of random scenes, judges each picture by `measure.py`, and prints a table in Markdown.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from captions import caption_where
from measure import judge
from scenes import random_scene

GATES = dict(color=0.95, background=0.97, pattern=None, shape=0.85, position=0.90)
MEANINGS = dict(
    color="dominant color of the object", background="background color", pattern="background pattern",
    shape="shape (IoU with the drawn mask at least 0.6)", position="position",
)


def cases(count, seed="evaluation"):
    rng = random.Random(seed)
    scenes = [random_scene(rng) for _ in range(count)]
    return [(scene, caption_where(scene, rng, True)) for scene in scenes]


def fourstep(arguments, text, seed, path):
    command = [
        arguments.binary, "generate", "--weights", arguments.model, "--prompt", text, "--width", arguments.size[0],
        "--height", arguments.size[1], "--num-inference-steps", arguments.steps, "--guidance-scale", arguments.guidance,
        "--scheduler", arguments.scheduler, "--seed", seed, "--out", path,
    ]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def with_diffusers(arguments):
    import reference

    pipe = reference.pipeline(arguments.model, arguments.scheduler)

    def draw(arguments, text, seed, path):
        image = reference.draw(pipe, text, seed, *arguments.size, arguments.steps, arguments.guidance)
        image.save(path)
        return np.asarray(image, np.float32) / 255

    return draw


def sides(text):
    numbers = [int(number) for number in text.split("x")]
    return numbers[0], numbers[-1]


def table(verdicts):
    groups = {"all": verdicts, "one object": [v for v in verdicts if not v["pair"]],
              "two objects": [v for v in verdicts if v["pair"]]}
    groups = {name: group for name, group in groups.items() if group}
    lines = ["| | gate | " + " | ".join(f"{name} ({len(group)})" for name, group in groups.items()) + " |",
             "|---|---|" + "---|" * len(groups)]
    for name, meaning in MEANINGS.items():
        gate = f"{GATES[name]:.0%}" if GATES[name] else ""
        rates = [sum(v[name] for v in group) / len(group) for group in groups.values()]
        lines.append(f"| {meaning} | {gate} | " + " | ".join(f"{rate:.1%}" for rate in rates) + " |")
    overlaps = [f"{np.mean([v['overlap'] for v in group]):.3f}" for group in groups.values()]
    return "\n".join([*lines, "| mean IoU | | " + " | ".join(overlaps) + " |"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--binary", default="target/release/fourstep")
    parser.add_argument("--diffusers", action="store_true")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--scheduler", default="K_EULER")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--size", type=sides, default="256", help="a side, or WIDTHxHEIGHT")
    parser.add_argument("--guidance", type=float, default=0.0)
    parser.add_argument("--out", default="/tmp/demo-evaluation")
    arguments = parser.parse_args()
    os.makedirs(arguments.out, exist_ok=True)
    draw = with_diffusers(arguments) if arguments.diffusers else fourstep
    began = time.monotonic()

    def one(numbered):
        i, (scene, text) = numbered
        image = draw(arguments, text, i, f"{arguments.out}/{i:03}.png")
        return dict(judge(image, scene), pair=scene.pair, caption=text)

    with ThreadPoolExecutor(1 if arguments.diffusers else 2) as pool:
        verdicts = list(pool.map(one, enumerate(cases(arguments.count))))
    with open(f"{arguments.out}/verdicts.json", "w") as file:
        json.dump(verdicts, file, indent=1, default=bool)
    print(table(verdicts))
    print(f"\n{arguments.count} captions in {time.monotonic() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
