"""peer_diffusers.py FOLDER SIZE DTYPE RUNS DEVICE [compile]: diffusers, one JSON object on standard output.

What `fourstep generate --timings` measures of the same model and prompt, in the same stages, RUNS times after one that
warms up. On a GPU its networks are channels-last, as its documentation advises, and with `compile` the UNet and the
decoder go through torch.compile. `benches/pipeline.py` calls it, with the Python of whoever has diffusers.
"""
import json
import os
import resource
import sys
import time

if sys.argv[5] == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

PROMPT = "a lighthouse on a cliff at sunset"
STEPS = 4


def wait():
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(object, name, times):
    """Has every call of a method add its seconds to `times`."""
    inner = getattr(object, name)

    def outer(*arguments, **options):
        wait()
        began = time.perf_counter()
        result = inner(*arguments, **options)
        wait()
        times.append(time.perf_counter() - began)
        return result

    setattr(object, name, outer)


def matrix_peak(device, dtype):
    """The best of what this torch reaches with square matrices, in GFLOP/s: what is possible here, near enough. On a CPU
    it is f32's."""
    side, dtype = (4096, torch.float32) if device == "cpu" else (8192, dtype)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = 0
    for _ in range(4):
        wait()
        began = time.perf_counter()
        a @ b
        wait()
        best = max(best, 2 * side**3 / (time.perf_counter() - began) / 1e9)
    return best


def main(folder, size, dtype, runs, device, compiled):
    torch.set_grad_enabled(False)
    dtype = getattr(torch, dtype)
    began = time.perf_counter()
    part = lambda kind, name: kind.from_pretrained(f"{folder}/{name}", torch_dtype=dtype)
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
    pipe.to(device)
    if device != "cpu":
        pipe.unet.to(memory_format=torch.channels_last)
        pipe.vae.to(memory_format=torch.channels_last)
    wait()
    load = time.perf_counter() - began
    if compiled:
        pipe.unet.forward = torch.compile(pipe.unet.forward, fullgraph=True)
        pipe.vae.decode = torch.compile(pipe.vae.decode, fullgraph=True)
    if pipe.vae.config.force_upcast and dtype == torch.float16:
        # f16 overflows in the VAE, so that diffusers decodes in f32. It converts the VAE for every picture; here that is done once.
        pipe.vae.to(torch.float32)
        # As TF32 in products, too, as torch by itself does in convolutions.
        torch.set_float32_matmul_precision("high")
        decode_latents = pipe.vae.decode
        pipe.vae.decode = lambda latents, **options: decode_latents(latents.to(torch.float32), **options)
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
    peak_device = torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else None
    print(json.dumps({
        "load_s": load, "encode_s": encode, "steps_s": steps, "decode_s": decode, "image_s": totals,
        "peak_rss_mib": peak_rss, "peak_device_mib": peak_device, "finite": finite, "threads": torch.get_num_threads(),
        "versions": f"torch {torch.__version__}", "matrix_gflops": matrix_peak(device, dtype),
    }))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6:] == ["compile"])
