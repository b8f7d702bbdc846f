"""paths.py STATE STEPS BATCH: goes on with the UNet along the sampler's own way through the four timesteps.

Until now each timestep got a true picture with noise. A sampler comes to the later ones with what the earlier ones made
of its noise, dents and all, and nobody has taught them to mend those. Here most samples start from noise and are walked
through the four timesteps one training step at a time: each is asked for the true picture from wherever the UNet has come
to, and moves on with the answer. The rest is as before, for other step counts, schedulers and image to image.
"""
import random
import sys
from dataclasses import dataclass

import torch
from torch.nn import functional as F

import training
from captions import caption_where
from denoiser import STEPS, DenoiserJob, batch_at
from model import NOISE, SIGMAS, SIGNAL, latents_of
from scenes import jittered, random_scene, render
from sizes import LEAST, MOST, SizesJob

# Samples on their way, of each of these sizes and in each process; the share of samples that are; that of pairs among all.
SIZES = [(32, 32), (48, 48), (64, 64)]
ALIVE, SHARE, PAIRS = 4, 0.7, 0.6
OTHERS = (0.15, 0.15, 0.15, 0.15)


@dataclass
class Sample:
    """A scene that the UNet is to draw. `x` is a latent with noise of SIGMAS[timestep] for one on its way."""

    text: str
    clean: torch.Tensor
    weight: torch.Tensor
    at: int = 0
    x: torch.Tensor = None


class PathsJob(SizesJob):
    name, report_every = "paths", 500
    muon_lr, adam_lr, text_lr, flat = 0.003, 6e-4, 1e-4, 0.3
    average = 0.99

    def __init__(self, state, steps, batch):
        super().__init__(state, steps, batch)
        self.model.load_state_dict(torch.load(f"{state}/sizes.pt", weights_only=False)["averaged"])
        self.means = torch.full((18,), 0.1)
        self.alive = {}

    def goal(self, step):
        return self.steps

    def size(self, step, progress, rank):
        rng = random.Random(f"paths {self.seed} {step}")
        if rank == 0:
            return SIZES[0]
        kind = rng.random()
        if kind < 0.8:
            return SIZES[0] if kind < 0.3 else SIZES[1] if kind < 0.45 else SIZES[2]
        return tuple(rng.randrange(LEAST, MOST + 1, 4 if kind < 0.95 else 1) for _ in range(2))

    def scene(self, rng, width, height, exact):
        scene = random_scene(rng, PAIRS)
        image, mask = render(scene if exact else jittered(scene, rng), width, height)
        clean = latents_of(torch.from_numpy(image).permute(2, 0, 1)[None].float() * 2 - 1)[0]
        share = F.avg_pool2d(torch.from_numpy(mask)[None, None], 8)[0]
        near = (F.max_pool2d(share, 3, 1, 1) > 0.01).float()
        # Objects get about half of the weight, and their outlines more: there a picture looks right or wrong.
        part = near.mean()
        edge = ((share > 0.01) & (share < 0.99)).float()
        weight = 1 + near * ((1 - part) / part).clamp(1, 6) + 6 * edge
        return Sample(caption_where(scene, rng, False), clean, weight / weight.mean())

    def loss(self, step, progress, rng, rank):
        size = self.size(step, progress, rank)
        height, width = (8 * n for n in size)
        alive = self.alive.setdefault(size, [])
        samples, t, groups, inputs = [], [], [], []
        for _ in range(batch_at(size, self.batch)):
            if size in SIZES and rng.random() < SHARE:
                if len(alive) < ALIVE:
                    sample = self.scene(rng, width, height, True)
                    sample.x = torch.randn_like(sample.clean) * SIGMAS[STEPS[0]]
                else:
                    sample = alive.pop(rng.randrange(len(alive)))
                t.append(STEPS[sample.at])
                groups.append(14 + sample.at)
                inputs.append(sample.x * SIGNAL[t[-1]])
            else:
                sample = self.scene(rng, width, height, False)
                if rng.random() < 0.25:
                    sample.text = ""
                group = rng.choices(range(5), [*OTHERS, 1 - sum(OTHERS)])[0]
                t.append(STEPS[group] if group < 4 else rng.randrange(1000))
                groups.append(group if group < 4 else 4 + t[-1] // 100)
                inputs.append(SIGNAL[t[-1]] * sample.clean + NOISE[t[-1]] * torch.randn_like(sample.clean))
            samples.append(sample)
        times, groups = torch.tensor(t), torch.tensor(groups)
        a, b = SIGNAL[times][:, None, None, None], NOISE[times][:, None, None, None]
        x, clean = torch.stack(inputs), torch.stack([sample.clean for sample in samples])
        first, second = self.vocabulary.encode([sample.text for sample in samples], rng)
        # The v that leads from x to the true picture, wherever x came from.
        wanted = (a * x - clean) / b
        found = self.model(x, times, first, second, width, height)
        squares = ((found - wanted) ** 2 * torch.stack([sample.weight for sample in samples])).mean((1, 2, 3))
        losses = {}
        with torch.no_grad():
            drawn = a * x - b * found
            for i, (sample, group) in enumerate(zip(samples, groups.tolist())):
                self.means[group] = 0.97 * self.means[group] + 0.03 * squares[i]
                name = f"p{STEPS[group - 14]}" if group >= 14 else "other"
                losses.setdefault(name, []).append(squares[i].item() ** 0.5)
                if group >= 14 and sample.at < 3:
                    sigma, following = SIGMAS[STEPS[sample.at]], SIGMAS[STEPS[sample.at + 1]]
                    sample.x = sample.x + (following - sigma) * (sample.x - drawn[i]) / sigma
                    sample.at += 1
                    alive.append(sample)
        loss = (squares / self.means[groups].clamp(min=1e-4)).mean()
        return loss, {name: sum(values) / len(values) for name, values in losses.items()}


if __name__ == "__main__":
    training.run(PathsJob, sys.argv[1], steps=int(sys.argv[2]), batch=int(sys.argv[3]))
