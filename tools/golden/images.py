"""images.py FIXTURES: whole images as diffusers draws them, and images as Pillow prepares them.

Every scheduler draws from text and from an image, with and without guidance, with the tiny model of `tiny_model.py`. A
second model of other dimensions is written and drawn with, at sizes whose latents no power of two divides. All noise is
what torch's CUDA generator would draw, in the order in which diffusers asks for it.
"""
import os
import sys

import diffusers.models.autoencoders.vae as vae
import diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl as text_to_image
import diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img as image_to_image
import diffusers.schedulers.scheduling_euler_ancestral_discrete as euler_ancestral
import diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete as k_dpm_2_ancestral
import numpy as np
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from clip_vocabulary import read_merges
from schedulers import CLASSES
from tiny_model import NEGATIVE, PROMPT, SEED, write_model
from torch_cuda_noise import TorchCudaRng

OTHER = dict(
    text=dict(hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2, projection_dim=16),
    text_2=dict(hidden_size=24, intermediate_size=72, num_hidden_layers=3, num_attention_heads=3, projection_dim=20),
    unet=dict(
        sample_size=12, block_out_channels=(8, 16, 24), layers_per_block=1, norm_num_groups=4,
        transformer_layers_per_block=[1, 2, 1], attention_head_dim=[2, 4, 3], addition_time_embed_dim=12,
    ),
    vae=dict(
        block_out_channels=(6, 9, 12, 15), layers_per_block=2, norm_num_groups=3, sample_size=96,
        scaling_factor=0.18215,
    ),
    scheduler=dict(prediction_type="v_prediction"), force_zeros_for_empty_prompt=False,
)
MERGES = 120

rng = TorchCudaRng(SEED)


def randn_tensor(shape, generator=None, device=None, dtype=None, layout=None):
    return torch.from_numpy(rng.normal(tuple(shape)))


for module in (vae, text_to_image, image_to_image, euler_ancestral, k_dpm_2_ancestral):
    module.randn_tensor = randn_tensor


def draw(folder, scheduler, **arguments):
    """One image, by the pipeline the arguments call for, with a generator at the start of its stream."""
    kind = StableDiffusionXLImg2ImgPipeline if "image" in arguments else StableDiffusionXLPipeline
    pipe = kind.from_pretrained(folder, torch_dtype=torch.float32, add_watermarker=False)
    # The hosted model's options, whatever the model's own configuration says.
    options = {"KarrasDPM": {"use_karras_sigmas": True}, "PNDM": {"skip_prk_steps": True}}.get(scheduler, {})
    pipe.scheduler = CLASSES[scheduler].from_config(pipe.scheduler.config, timestep_spacing="trailing", **options)
    pipe.set_progress_bar_config(disable=True)
    rng.__init__(SEED)
    with torch.no_grad():
        return pipe(prompt=PROMPT, **arguments).images[0]


def save(image, path):
    image.save(path, optimize=True)
    print(path, image.size, os.path.getsize(path))


def picture(width, height):
    """A disk and a ring on a slope: edges, flats, thin lines and every level."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pixels = np.stack([255 * x / width, 255 * y / height, 255 - 255 * (x + y) / (width + height)], axis=2)
    distance = np.hypot(x - 0.4 * width, y - 0.45 * height)
    pixels[distance < 0.25 * width] = (250, 40, 30)
    pixels[np.abs(distance - 0.35 * width) < 1] = (255, 255, 255)
    pixels[(y % 9 == 4) & (x > 0.7 * width)] = (0, 0, 0)
    return Image.fromarray(pixels.astype(np.uint8))


def prepared(out):
    """What Pillow does to images before diffusers sees them."""
    for width, height in ((56, 80), (24, 40), (160, 100), (61, 30), (1, 1)):
        save(picture(61, 83).resize((width, height), Image.Resampling.LANCZOS), f"{out}/resized-{width}x{height}.png")
    transparent = picture(40, 30).convert("RGBA")
    transparent.putalpha(Image.fromarray(np.arange(1200, dtype=np.uint32).reshape(30, 40).astype(np.uint8)))
    save(transparent, f"{out}/transparent.png")
    white = Image.new("RGB", transparent.size, "white")
    white.paste(transparent, mask=transparent.getchannel("A"))
    save(white, f"{out}/on-white.png")
    # Of an animation the encoder keeps of each frame what is not transparent.
    frames = [Image.new("RGBA", (160, 160)) for _ in range(2)]
    for at, frame in enumerate(frames):
        ImageDraw.Draw(frame).ellipse((26, 26 + 4 * at, 134, 134 + 4 * at), fill=(200, 80, 40, 255))
        frames[at] = frame.filter(ImageFilter.GaussianBlur(8))
    frames[0].save(f"{out}/animated.webp", save_all=True, append_images=frames[1:], quality=90, method=6)
    upright = picture(40, 24)
    save(upright, f"{out}/upright.png")
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # by the number of Image.Transpose
    for orientation in range(1, 9):
        turned = upright.transpose(Image.Transpose(undone[orientation])) if orientation > 1 else upright
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = f"{out}/orientation-{orientation}.jpg"
        turned.save(path, quality=95, subsampling=0, exif=exif)
        assert ImageOps.exif_transpose(Image.open(path)).size == upright.size
        difference = np.abs(np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int) - np.asarray(upright))
        assert difference.mean() < 4, (orientation, difference.mean())


def main(fixtures):
    torch.set_num_threads(1)
    out = f"{fixtures}/images"
    os.makedirs(out, exist_ok=True)
    start = picture(61, 83)
    save(start, f"{out}/start.png")
    prepared(out)
    guided = dict(guidance_scale=7.5, negative_prompt=NEGATIVE)
    for scheduler in CLASSES:
        for guidance, asked in (("plain", dict(guidance_scale=0.0)), ("guided", guided)):
            image = draw(f"{fixtures}/tiny", scheduler, width=48, height=64, num_inference_steps=4, **asked)
            save(image, f"{out}/{scheduler}.text.{guidance}.png")
            image = draw(f"{fixtures}/tiny", scheduler, image=start, strength=0.7, num_inference_steps=5, **asked)
            save(image, f"{out}/{scheduler}.image.{guidance}.png")
    other = f"{fixtures}/other"
    write_model(other, read_merges()[:MERGES], OTHER)
    image = draw(other, "K_EULER", width=88, height=104, num_inference_steps=4, guidance_scale=0.0)
    save(image, f"{out}/other.text.png")
    image = draw(other, "DPM++2MSDE", width=72, height=56, num_inference_steps=3, guidance_scale=5.0)
    save(image, f"{out}/other.guided.png")
    image = draw(other, "HeunDiscrete", image=start, strength=0.5, num_inference_steps=6, guidance_scale=1.0)
    save(image, f"{out}/other.image.png")


if __name__ == "__main__":
    main(sys.argv[1])
