"""behavior.py MODEL OUT.png [--binary fourstep | --diffusers] [--count 24] [--only PART ...]: what the model does away
from 4 steps of Euler's method.

Rates over held-out captions as in `evaluate.py`, one line a setting, and a sheet with a row of pictures for each.
"""
import argparse
import random
import subprocess
import tempfile

import numpy as np
from PIL import Image

from evaluate import cases
from measure import judge, summary
from scenes import COLORS, RADII, Scene, Thing, coverage, render

SHOWN = 8
SCHEDULERS = (
    "DDIM", "DPMSolverMultistep", "HeunDiscrete", "KarrasDPM", "K_EULER_ANCESTRAL", "K_EULER", "PNDM", "DPM++2MSDE",
)


def line(name, verdicts):
    found = summary(verdicts)
    names = ("color", "background", "shape", "position", "overlap")
    print(f"| {name} | " + " | ".join(f"{found[n]:.2f}" for n in names) + " |", flush=True)


def pixels(image):
    return np.asarray(image, np.float32) / 255


def thumbnails(images):
    return [image.convert("RGB").resize((96, 96), Image.LANCZOS) for image in images[:SHOWN]]


class Fourstep:
    """Draws by `fourstep generate`."""

    def __init__(self, model, binary):
        self.model, self.binary = model, binary

    def draw(self, text, seed, width, height, scheduler, steps, guidance=0.0, negative_prompt=None, image=None, strength=None):
        with tempfile.TemporaryDirectory() as folder:
            command = [
                self.binary, "generate", "--weights", self.model, "--prompt", text, "--seed", seed, "--width", width,
                "--height", height, "--scheduler", scheduler, "--num-inference-steps", steps, "--guidance-scale", guidance,
                "--out", f"{folder}/drawn.png",
            ]
            if negative_prompt:
                command += ["--negative-prompt", negative_prompt]
            if image:
                image.save(f"{folder}/start.png")
                command += ["--image", f"{folder}/start.png", "--prompt-strength", strength]
            subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            return Image.open(f"{folder}/drawn.png").convert("RGB")


class Diffusers:
    """Draws by diffusers; an image's latents are sampled with torch's own generator."""

    def __init__(self, model):
        import reference

        self.reference, self.pipe = reference, reference.pipeline(model)
        self.config = self.pipe.scheduler.config

    def draw(self, text, seed, width, height, scheduler, steps, guidance=0.0, negative_prompt=None, image=None, strength=None):
        import torch
        from diffusers import StableDiffusionXLImg2ImgPipeline

        kind, options = self.reference.SCHEDULERS[scheduler]
        self.pipe.scheduler = kind.from_config(self.config, timestep_spacing="trailing", **options)
        if image is None:
            extra = dict(negative_prompt=negative_prompt) if negative_prompt else {}
            return self.reference.draw(self.pipe, text, seed, width, height, steps, guidance, **extra)
        pipe = StableDiffusionXLImg2ImgPipeline(**self.pipe.components)
        pipe.set_progress_bar_config(disable=True)
        return pipe(prompt=text, image=image, strength=strength, num_inference_steps=steps, guidance_scale=guidance,
                    generator=torch.Generator().manual_seed(seed)).images[0]


def text_to_image(artist, scenes, settings):
    rows = []
    for scheduler, steps, width, height, guidance, extra in settings:
        images = [
            artist.draw(text, seed, width, height, scheduler, steps, guidance, **extra)
            for seed, (_, text) in enumerate(scenes)
        ]
        name = f"{scheduler}, {steps} steps, {width} x {height}" + (f", guidance {guidance}" if guidance else "")
        line(name + "".join(f", {k} {v!r}" for k, v in extra.items()),
             [judge(pixels(image), scene) for image, (scene, _) in zip(images, scenes)])
        rows.append(thumbnails(images))
    return rows


def image_to_image(artist, count, side, strengths):
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
            drawn = artist.draw(prompt, seed, side, side, "K_EULER", steps, image=image, strength=strength)
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
    parser.add_argument("--binary", default="target/release/fourstep")
    parser.add_argument("--diffusers", action="store_true")
    parser.add_argument("--count", type=int, default=24, help="captions a setting, and objects for image to image")
    parts = ("steps", "schedulers", "more-steps", "sizes", "guidance", "image")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    arguments = parser.parse_args()
    artist = Diffusers(arguments.model) if arguments.diffusers else Fourstep(arguments.model, arguments.binary)
    settings = dict(
        steps=[("K_EULER", steps, 256, 256, 0.0, {}) for steps in (1, 2, 3, 4, 6, 10)],
        schedulers=[(name, 4, 256, 256, 0.0, {}) for name in SCHEDULERS],
        sizes=[("K_EULER", 4, *size, 0.0, {}) for size in ((320, 320), (384, 384), (512, 512), (512, 384), (256, 512), (320, 448))],
        guidance=[("K_EULER", 4, 256, 256, guidance, {}) for guidance in (2.0, 5.0)]
        + [("K_EULER", 4, 256, 256, 3.0, dict(negative_prompt="red"))],
    )
    settings["more-steps"] = [(name, 8, 256, 256, 0.0, {}) for name in ("DDIM", "KarrasDPM", "PNDM")]
    wanted = [setting for part in arguments.only for setting in settings.get(part, ())]
    rows = []
    if wanted:
        print("| setting | color | background | shape | position | mean IoU |\n|---|---|---|---|---|---|", flush=True)
        rows += text_to_image(artist, cases(arguments.count, "behavior"), wanted)
    if "image" in arguments.only:
        print("\n| size | strength | steps | object pixels that stay object | way to the new color | more than half of the way |")
        print("|---|---|---|---|---|---|", flush=True)
        rows += image_to_image(artist, arguments.count, 256, ((0.3, 10), (0.5, 8), (0.8, 5), (1.0, 4)))
        rows += image_to_image(artist, arguments.count // 2, 512, ((0.3, 10), (0.8, 5)))
    sheet = Image.new("RGB", (SHOWN * 96, len(rows) * 96), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image, (x * 96, y * 96))
    sheet.save(arguments.out)


if __name__ == "__main__":
    main()
