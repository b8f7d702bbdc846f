"""peer_diffusers.py FOLDER SIZE DTYPE RUNS: diffusers on the CPU, one JSON object on standard output.

What `fourstep generate --timings` measures of the same model and prompt, in the same stages, RUNS times after one that
warms up. `benches/pipeline.py` calls it, with the Python of whoever has diffusers.
"""
import json
import os
import resource
import sys
import time

os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PROMPT = "a lighthouse on a cliff at sunset"
STEPS = 4


def timed(object, name, times):
    """Has every call of a method add its seconds to `times`."""
    inner = getattr(object, name)

    def outer(*arguments, **options):
        began = time.perf_counter()
        result = inner(*arguments, **options)
        times.append(time.perf_counter() - began)
        return result

    setattr(object, name, outer)


def matrix_peak():
    """The best of what this torch reaches with square f32 matrices, in GFLOP/s: what is possible here, near enough."""
    side = 4096
    a, b = torch.randn(side, side), torch.randn(side, side)
    best = 0
    for _ in range(4):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * side**3 / (time.perf_counter() - began) / 1e9)
    return best


def main(folder, size, dtype, runs):
    torch.set_grad_enabled(False)
    began = time.perf_counter()
    part = lambda kind, name: kind.from_pretrained(f"{folder}/{name}", torch_dtype=getattr(torch, dtype))
    # Part by part: a folder of files alone has no index that names them.
    pipe = StableDiffusionXLPipeline(
        vae=part(AutoencoderKL, "vae"),
        text_encoder=part(CLIPTextModel, "text_encoder"),
        text_encoder_2=part(CLIPTextModelWithProjection, "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(f"{folder}/tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(f"{folder}/tokenizer_2"),
        unet=part(UNet2DConditionModel, "unet"),
        scheduler=EulerDiscreteScheduler.from_pretrained(f"{folder}/scheduler", timestep_spacing="trailing"),
    )
    load = time.perf_counter() - began
    # Else the VAE is converted for every picture.
    pipe.vae.config.force_upcast = False
    pipe.set_progress_bar_config(disable=True)
    encode, steps, decode = [], [], []
    timed(pipe, "encode_prompt", encode)
    timed(pipe.unet, "forward", steps)
    timed(pipe.vae, "decode", decode)
    totals, finite = [], True
    for seed in range(runs + 1):
        for times in (encode, steps, decode) if seed == 1 else ():
            times.clear()
        began = time.perf_counter()
        image = pipe(
            PROMPT, num_inference_steps=STEPS, guidance_scale=0.0, height=size, width=size,
            generator=torch.Generator().manual_seed(seed), output_type="np",
        ).images
        finite &= bool((image == image).all())
        if seed or not runs:
            totals.append(time.perf_counter() - began)
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({
        "load_s": load, "encode_s": encode, "steps_s": steps, "decode_s": decode, "image_s": totals,
        "peak_rss_mib": peak_rss, "finite": finite, "threads": torch.get_num_threads(),
        "versions": f"torch {torch.__version__}", "matrix_gflops": matrix_peak(),
    }))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
