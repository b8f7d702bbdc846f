"""behavior.py MODEL OUT.png: what the model does away from 4 steps of Euler's method, through diffusers.

Rates over held-out captions as in `evaluate.py`, one line a setting, and a sheet with a row of pictures for each.
"""
import argparse
import random

import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image

import reference
from evaluate import cases
from measure import judge, summary
from scenes import COLORS, RADII, Scene, Thing, coverage, render

SHOWN = 8


def line(name, verdicts):
    found = summary(verdicts)
    names = ("color", "background", "shape", "position", "overlap")
    print(f"| {name} | " + " | ".join(f"{found[n]:.2f}" for n in names) + " |", flush=True)


def pixels(image):
    return np.asarray(image, np.float32) / 255


def thumbnails(images):
    return [image.convert("RGB").resize((96, 96), Image.LANCZOS) for image in images[:SHOWN]]


def text_to_image(model, scenes, settings):
    pipe = reference.pipeline(model)
    rows, euler = [], pipe.scheduler
    for scheduler, steps, width, height, guidance, extra in settings:
        kind, options = reference.SCHEDULERS[scheduler]
        pipe.scheduler = kind.from_config(euler.config, timestep_spacing="trailing", **options)
        images = [
            reference.draw(pipe, text, seed, width, height, steps, guidance, **extra)
            for seed, (_, text) in enumerate(scenes)
        ]
        name = f"{scheduler}, {steps} steps, {width} x {height}" + (f", guidance {guidance}" if guidance else "")
        line(name + "".join(f", {k} {v!r}" for k, v in extra.items()),
             [judge(pixels(image), scene) for image, (scene, _) in zip(images, scenes)])
        rows.append(thumbnails(images))
    pipe.scheduler = euler
    return pipe, rows


def image_to_image(pipe, count, side, strengths):
    """One object of another color than the source's: is it kept in place, and does it turn to the new color?"""
    rng, rows = random.Random("image to image"), []
    shapes = ["circle", "square", "star", "heart", "triangle", "diamond"]
    sources = []
    for _ in range(count):
        ground, before, after = rng.sample([*COLORS], 3)
        thing = Thing(rng.choice(shapes), before, "large", 0, 0, RADII["large"])
        image = Image.fromarray((render(Scene([thing], "center", ground, "plain"), side, side)[0] * 255).astype("uint8"))
        sources.append((thing, ground, after, image))
    rows.append(thumbnails([source[3] for source in sources]))
    for strength, steps in strengths:
        kept, turned, followed, images = [], [], [], []
        for seed, (thing, ground, after, image) in enumerate(sources):
            prompt = f"a large {after} {thing.shape} on a {ground} background"
            drawn = pipe(prompt=prompt, image=image, strength=strength, num_inference_steps=steps, guidance_scale=0.0,
                         generator=torch.Generator().manual_seed(seed)).images[0]
            images.append(drawn)
            seen, mask = pixels(drawn), coverage(thing, side, side) > 0.5
            old, new, back = (np.array(COLORS[name]) / 255 for name in (thing.color, after, ground))
            object_like = np.minimum(((seen - old) ** 2).sum(-1), ((seen - new) ** 2).sum(-1)) < ((seen - back) ** 2).sum(-1)
            between = seen[mask].mean(0)
            toward = float(((between - old) * (new - old)).sum() / ((new - old) ** 2).sum())
            kept.append(float(object_like[mask].mean()))
            turned.append(toward)
            followed.append(toward > 0.5)
        print(f"| {side} x {side} | {strength} | {steps} | {np.mean(kept):.2f} | {np.mean(turned):.2f} | {np.mean(followed):.2f} |",
              flush=True)
        rows.append(thumbnails(images))
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--count", type=int, default=24, help="captions a setting, and objects for image to image")
    arguments = parser.parse_args()
    scenes = cases(arguments.count, "behavior")
    settings = [("K_EULER", steps, 256, 256, 0.0, {}) for steps in (1, 2, 3, 4, 6, 10)]
    settings += [(name, 4, 256, 256, 0.0, {}) for name in reference.SCHEDULERS if name != "K_EULER"]
    settings += [(name, 8, 256, 256, 0.0, {}) for name in ("DDIM", "KarrasDPM", "PNDM")]
    settings += [("K_EULER", 4, *size, 0.0, {}) for size in ((320, 320), (384, 384), (512, 512), (512, 384), (256, 512), (320, 448))]
    settings += [("K_EULER", 4, 256, 256, guidance, {}) for guidance in (2.0, 5.0)]
    settings += [("K_EULER", 4, 256, 256, 3.0, dict(negative_prompt="red"))]
    print("| setting | color | background | shape | position | mean IoU |\n|---|---|---|---|---|---|", flush=True)
    pipe, rows = text_to_image(arguments.model, scenes, settings)
    print("\n| size | strength | steps | object pixels that stay object | way to the new color | more than half of the way |")
    print("|---|---|---|---|---|---|", flush=True)
    pipe = StableDiffusionXLImg2ImgPipeline(**pipe.components)
    pipe.set_progress_bar_config(disable=True)
    rows += image_to_image(pipe, arguments.count, 256, ((0.3, 10), (0.5, 8), (0.8, 5), (1.0, 4)))
    rows += image_to_image(pipe, arguments.count // 2, 512, ((0.3, 10), (0.8, 5)))
    sheet = Image.new("RGB", (SHOWN * 96, len(rows) * 96), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * 96, y * 96))
    sheet.save(arguments.out)


if __name__ == "__main__":
    main()
