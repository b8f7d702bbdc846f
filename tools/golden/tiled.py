"""tiled.py FIXTURES: what diffusers' tiled VAE makes of pictures larger than its tiles, with the tiny model.

Every seventh number is kept: tiles, seams and corners are all among them.
"""
import sys

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

from tiny_model import SEED
from torch_cuda_noise import TorchCudaRng

TILE = 64
SIZES = ((19, 10), (8, 13))


def main(fixtures):
    torch.set_num_threads(1)
    vae = AutoencoderKL.from_pretrained(f"{fixtures}/tiny/vae", torch_dtype=torch.float32)
    vae.enable_tiling()
    vae.tile_sample_min_size, vae.tile_latent_min_size = TILE, TILE // 8
    golden = {}
    with torch.no_grad():
        for width, height in SIZES:
            latents = torch.from_numpy(TorchCudaRng(SEED).normal((1, 4, height, width)))
            pixels = torch.from_numpy(TorchCudaRng(SEED).normal((1, 3, 8 * height, 8 * width))).clamp(-1, 1)
            decoded = vae.decode(latents).sample
            assert decoded.shape == pixels.shape
            moments = vae.encode(pixels).latent_dist
            name = f"{width}x{height}"
            golden[f"{name}.decoded"] = decoded.permute(0, 2, 3, 1).flatten()[::7]
            golden[f"{name}.mean"] = moments.mean.permute(0, 2, 3, 1).flatten()
            golden[f"{name}.logvar"] = moments.logvar.permute(0, 2, 3, 1).flatten()
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, f"{fixtures}/tiled.safetensors")
    for name, tensor in golden.items():
        print(name, tuple(tensor.shape), float(tensor.abs().mean()))


if __name__ == "__main__":
    main(sys.argv[1])
