"""sheet.py MODEL OUT.png [--binary fourstep]: a contact sheet of pictures that fourstep draws, with their prompts."""
import argparse
import subprocess
import tempfile

from PIL import Image, ImageDraw, ImageFont

PROMPTS = [
    "a red circle on a blue background", "a small yellow star above a green square",
    "blue backdrop with one red disc", "a big purple heart on a pink striped background",
    "a white moon at night", "an orange triangle in the top left corner", "a cyan ring on a black checkered background",
    "a green cross on the right, yellow gradient background", "a large black diamond by day",
    "a pink square to the left of a blue circle", "a beautiful red heart, highly detailed, 4k",
    "a tiny white star in the bottom right on a purple background", "a yellow moon over a white ring at night",
    "green checkerboard with a huge orange star", "a blue donut under a red box on a white background",
    "a turquoise rhombus on red stripes",
]
LARGER = [
    ("a large red star on a yellow background", 512, 512), ("a green heart to the left of an orange ring", 512, 384),
    ("a white crescent moon at night", 384, 512), ("a pink cross over a black square, cyan background", 512, 512),
]
SIDE, COLUMNS, CAPTION = 128, 4, 42


def wrapped(draw, text, font, width):
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--binary", default="target/release/fourstep")
    arguments = parser.parse_args()
    cases = [(prompt, 256, 256) for prompt in PROMPTS] + LARGER
    rows = (len(cases) + COLUMNS - 1) // COLUMNS
    pad = 8
    sheet = Image.new("RGB", (COLUMNS * (SIDE + pad) + pad, rows * (SIDE + CAPTION + pad) + pad), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    with tempfile.TemporaryDirectory() as folder:
        for i, (prompt, width, height) in enumerate(cases):
            path = f"{folder}/{i}.png"
            subprocess.run(
                [arguments.binary, "generate", "--weights", arguments.model, "--prompt", prompt, "--width", str(width),
                 "--height", str(height), "--seed", str(i), "--out", path], check=True, stderr=subprocess.DEVNULL,
            )
            x, y = pad + i % COLUMNS * (SIDE + pad), pad + i // COLUMNS * (SIDE + CAPTION + pad)
            picture = Image.open(path).convert("RGB")
            picture.thumbnail((SIDE, SIDE), Image.LANCZOS)
            sheet.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
            text = prompt if width == height == 256 else f"{prompt} ({width} x {height})"
            draw.multiline_text((x, y + SIDE + 2), wrapped(draw, text, font, SIDE), "black", font, spacing=1)
    # The folder has a limit to its size.
    sheet.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2).save(arguments.out, optimize=True)


if __name__ == "__main__":
    main()
