"""polish.py STATE STEPS: goes on with the autoencoder's decoder, on latents as the UNet leaves them.

Those are never exact. From the UNet's own pictures of captions, with the true ones beside them, the decoder learns which
dents and tints are errors, and leaves them out.
"""
import sys

import numpy as np
import torch

import training
from captions import caption_where
from denoiser import Painter, sample
from export import averaged
from model import autoencoder, latents_of
from scenes import jittered, random_scene, render
from vocabulary import Vocabulary

# A caption drawn as something else teaches nothing about edges: latents further than this from the true ones are left out.
FAR = 0.35


class PolishJob(training.Job):
    name, muon_lr, adam_lr, clip, report_every, flat = "polish", 0.003, 6e-4, 1.0, 10**9, 0.2
    average = 0.99

    def __init__(self, state, steps):
        self.steps = steps
        self.vocabulary = Vocabulary(f"{state}/tokenizer")
        self.painter = Painter(self.vocabulary).eval().requires_grad_(False)
        self.painter.load_state_dict(averaged(state, "paths", "sizes", "denoiser"))
        self.model = autoencoder()
        self.model.load_state_dict(averaged(state, "encoder", "decoder"))
        for part in (self.model.encoder, self.model.quant_conv):
            part.requires_grad_(False)

    def scenes(self, rng, exact, count):
        scenes = [random_scene(rng, 0.5) for _ in range(count)]
        drawn = [render(scene if exact else jittered(scene, rng))[0] for scene in scenes]
        return scenes, torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() * 2 - 1

    def loss(self, step, progress, rng, rank):
        # Half from the UNet, half true ones with a little noise, as before.
        by_unet = rng.random() < 0.5
        scenes, images = self.scenes(rng, by_unet, 2)
        latents = latents_of(images)
        if by_unet:
            texts = [caption_where(scene, rng, False) for scene in scenes]
            with torch.no_grad():
                found = sample(self.painter, self.vocabulary, texts, seed=rng.randrange(2**40))
            near = ((found - latents).abs().mean((1, 2, 3), keepdim=True) < FAR).float()
            latents = near * found + (1 - near) * latents
        else:
            latents = latents + torch.rand(len(latents), 1, 1, 1) * 0.2 * torch.randn_like(latents)
        # A window of 18 latents, so that half of the picture is seen at a time.
        top, left = (rng.randint(0, 14) for _ in range(2))
        latents = latents[:, :, top : top + 18, left : left + 18]
        images = images[:, :, 8 * top : 8 * top + 144, 8 * left : 8 * left + 144]
        off = (self.model.decode(latents).sample - images).abs().mean()
        return off, {"unet" if by_unet else "noise": off.item()}


if __name__ == "__main__":
    training.run(PolishJob, sys.argv[1], steps=int(sys.argv[2]))
