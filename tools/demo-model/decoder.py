"""decoder.py STATE STEPS: teaches the autoencoder's decoder to draw sharp pictures from latents that are fixed beforehand.

With the latents fixed, the UNet and both halves of the autoencoder can be trained apart from each other.
"""
import sys

import numpy as np
import torch

import training
from model import autoencoder, initialize, latents_of
from scenes import jittered, random_scene, render


def pictures(rng, count, width, height):
    images = [render(jittered(random_scene(rng), rng), width, height)[0] for _ in range(count)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() * 2 - 1


class DecoderJob(training.Job):
    name, muon_lr, adam_lr, clip, report_every, flat = "decoder", 0.01, 2e-3, 1.0, 10**9, 0.4

    def __init__(self, state, steps):
        self.steps = steps
        self.model = initialize(autoencoder())
        for part in (self.model.encoder, self.model.quant_conv):
            part.requires_grad_(False)

    def loss(self, step, progress, rng, rank):
        side, count = (64, 8) if progress < 0.5 else (128, 3) if progress < 0.8 else (256, 1)
        whole = pictures(rng, max(1, count // 2), 256, 256)
        crops = []
        for i in range(count):
            top, left = (rng.randint(0, (256 - side) // 8) * 8 for _ in range(2))
            crops.append(whole[i % len(whole), :, top : top + side, left : left + side])
        images = torch.stack(crops)
        latents = latents_of(images)
        # The UNet's latents are never exact.
        latents = latents + torch.rand(count, 1, 1, 1) * 0.1 * torch.randn_like(latents)
        drawn = self.model.decode(latents).sample
        off = (drawn - images).abs().mean()
        return off + 0.5 * ((drawn - images) ** 2).mean(), dict(l1=off.item())


if __name__ == "__main__":
    training.run(DecoderJob, sys.argv[1], steps=int(sys.argv[2]))
