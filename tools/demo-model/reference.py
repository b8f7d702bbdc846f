"""What diffusers draws from the exported folder, from the same Philox noise as fourstep."""
import os
import sys

import torch
from diffusers import (
    DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
    HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler, PNDMScheduler, StableDiffusionXLPipeline,
)

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "golden"))
from torch_cuda_noise import TorchCudaRng

SCHEDULERS = {
    "DDIM": (DDIMScheduler, {}), "DPMSolverMultistep": (DPMSolverMultistepScheduler, {}),
    "HeunDiscrete": (HeunDiscreteScheduler, {}),
    "KarrasDPM": (DPMSolverMultistepScheduler, dict(use_karras_sigmas=True)),
    "K_EULER_ANCESTRAL": (EulerAncestralDiscreteScheduler, {}), "K_EULER": (EulerDiscreteScheduler, {}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True}), "DPM++2MSDE": (KDPM2AncestralDiscreteScheduler, {}),
}


def pipeline(folder, scheduler="K_EULER"):
    torch.set_num_threads(2)
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    kind, options = SCHEDULERS[scheduler]
    pipe.scheduler = kind.from_config(pipe.scheduler.config, timestep_spacing="trailing", **options)
    return pipe


@torch.no_grad()
def draw(pipe, text, seed, width=256, height=256, steps=4, guidance=0.0, **arguments):
    noise = torch.from_numpy(TorchCudaRng(seed).normal((1, 4, height // 8, width // 8)))
    return pipe(
        prompt=text, num_inference_steps=steps, guidance_scale=guidance, width=width, height=height, latents=noise,
        generator=torch.Generator().manual_seed(seed), **arguments,
    ).images[0]
