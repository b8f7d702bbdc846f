"""denoiser.py STATE STEPS BATCH: trains the UNet (and goes on with the text encoders) to draw what a caption says.

v-prediction. Most of the work goes to the four timesteps of a 4-step trailing schedule, the rest to all others, so that
other step counts, schedulers and image to image have something to stand on.
"""
import random
import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import training
from captions import caption_where
from measure import judge, summary
from model import NOISE, SIGMAS, SIGNAL, Texts, initialize, latents_of, unet
from scenes import jittered, random_scene, render
from vocabulary import Vocabulary

STEPS = [999, 749, 499, 249]
# Latent sizes beside 32 x 32, a first taste: `sizes.py` teaches them.
SIZES = [(48, 48), (64, 64), (32, 48), (48, 32), (40, 40), (64, 48), (48, 64), (64, 64)]


@dataclass
class Phase:
    """From a step on: where the learning rate's fall ends, the shares of the four timesteps, of other sizes and of two objects."""

    start: int
    goal: int
    shares: tuple
    sizes: float
    pairs: float


# The schedule of the run that made the weights. It was found on the way: more of the first timestep, where everything is
# decided, and then more pairs, which are harder than one object, so that they come more often than in the evaluation.
PHASES = [
    Phase(0, 4500, (0.28, 0.18, 0.14, 0.10), 0.20, 0.3),
    Phase(2307, 4900, (0.40, 0.20, 0.12, 0.08), 0.15, 0.3),
    Phase(2999, 4000, (0.40, 0.20, 0.12, 0.08), 0.15, 0.3),
    Phase(4000, 5200, (0.44, 0.22, 0.11, 0.07), 0.15, 0.3),
    Phase(4200, 4800, (0.44, 0.22, 0.11, 0.07), 0.15, 0.3),
    Phase(4306, 5300, (0.44, 0.22, 0.11, 0.07), 0.15, 0.5),
]


class Painter(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.texts = Texts(vocabulary.rows, vocabulary.start)
        self.unet = initialize(unet())

    def forward(self, x, t, first, second, width, height):
        states, pooled = self.texts(first, second)
        sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=torch.float32).repeat(len(x), 1)
        added = dict(text_embeds=pooled, time_ids=sizes)
        return self.unet(x, t, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False)[0]


def sample(model, vocabulary, captions, side=256, seed=0, steps=STEPS):
    """Latents by Euler's method over `steps`, as the pipeline does without guidance."""
    generator = torch.Generator().manual_seed(seed)
    first, second = vocabulary.encode(captions)
    x = torch.randn(len(captions), 4, side // 8, side // 8, generator=generator) * SIGMAS[steps[0]]
    for i, step in enumerate(steps):
        sigma, following = SIGMAS[step], SIGMAS[steps[i + 1]] if i + 1 < len(steps) else torch.tensor(0.0)
        scaled = x / (sigma**2 + 1).sqrt()
        v = model(scaled, torch.full((len(x),), step), first, second, side, side)
        clean = SIGNAL[step] * scaled - NOISE[step] * v
        x = x + (following - sigma) * (x - clean) / sigma
    return x


def batch_at(size, batch):
    """How many pictures of a size cost about as much as a batch of 32 x 32 latents."""
    return max(1, round(batch * 1024 / (size[0] * size[1])))


class DenoiserJob(training.Job):
    name, clip, report_every = "denoiser", 1.0, 250
    muon_lr, adam_lr, text_lr, flat = 0.008, 2e-3, 6e-4, 0.45
    average = 0.995

    def __init__(self, state, steps, batch):
        self.steps, self.batch = steps, batch
        self.vocabulary = Vocabulary(f"{state}/tokenizer")
        self.model = Painter(self.vocabulary)
        read = torch.load(f"{state}/texts.pt", weights_only=False)["averaged"]
        self.model.load_state_dict({k: v for k, v in read.items() if k.startswith("texts.")}, strict=False)
        # Running mean loss: the four steps, then ten ranges of timesteps.
        self.means = torch.ones(14)

    def phase(self, step):
        """Fewer steps than the schedule has, as in a trial, pass through all of it faster."""
        at = step * PHASES[-1].goal / self.steps
        return next(phase for phase in reversed(PHASES) if phase.start <= at)

    def goal(self, step):
        return self.phase(step).goal * self.steps / PHASES[-1].goal

    def size(self, step, progress, rank):
        """Of the latents, height and width."""
        both = random.Random(f"size {self.seed} {step}")
        return both.choice(SIZES) if progress > 0.25 and both.random() < self.phase(step).sizes else (32, 32)

    def loss(self, step, progress, rng, rank):
        size = self.size(step, progress, rank)
        batch = batch_at(size, self.batch)
        phase = self.phase(step)
        height, width = (8 * n for n in size)
        scenes = [random_scene(rng, phase.pairs) for _ in range(batch)]
        drawn = [render(jittered(scene, rng), width, height) for scene in scenes]
        images = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2).float() * 2 - 1
        objects = F.avg_pool2d(torch.from_numpy(np.stack([mask for _, mask in drawn]))[:, None], 8)
        objects = (F.max_pool2d(objects, 3, 1, 1) > 0.01).float()
        texts = ["" if rng.random() < 0.1 else caption_where(scene, rng, False) for scene in scenes]
        first, second = self.vocabulary.encode(texts, rng)
        clean = latents_of(images)

        t, groups = [], []
        for _ in range(batch):
            group = rng.choices(range(5), [*phase.shares, 1 - sum(phase.shares)])[0]
            t.append(STEPS[group] if group < 4 else rng.randrange(1000))
            groups.append(group if group < 4 else 4 + t[-1] // 100)
        t, groups = torch.tensor(t), torch.tensor(groups)
        a, b = SIGNAL[t][:, None, None, None], NOISE[t][:, None, None, None]
        noise = torch.randn_like(clean)
        # A sampler starts from noise alone, where training has a trace of the picture left.
        start = torch.tensor([int(u == 999 and rng.random() < 0.6) for u in t])[:, None, None, None]
        x = a * clean * (1 - start) + b * noise
        wanted = a * noise - b * clean

        found = self.model(x, t, first, second, width, height)
        # Objects are a tenth of the picture: they get about half of the weight.
        share = objects.mean((2, 3), keepdim=True)
        weight = 1 + objects * ((1 - share) / share).clamp(1, 6)
        squares = ((found - wanted) ** 2 * weight).mean((1, 2, 3)) / weight.mean((1, 2, 3))
        losses = {}
        with torch.no_grad():
            for value, group in zip(squares, groups):
                self.means[group] = 0.97 * self.means[group] + 0.03 * value
                losses.setdefault(f"t{STEPS[group]}" if group < 4 else "other", []).append(value.item() ** 0.5)
        loss = (squares / self.means[groups].clamp(min=1e-4)).mean()
        return loss, {name: sum(values) / len(values) for name, values in losses.items()}

    def report(self, averaged):
        return report(averaged, self.vocabulary, 256, 32)


@torch.no_grad()
def report(model, vocabulary, side, count):
    """Rates over held-out captions, by the colors in the latents, without the decoder."""
    model.eval()
    rng = random.Random("report")
    scenes = [random_scene(rng) for _ in range(count)]
    latents = sample(model, vocabulary, [caption_where(scene, rng, True) for scene in scenes], side)
    images = F.interpolate(latents[:, :3] * 0.7, scale_factor=8, mode="bilinear").add(1).div(2).clamp(0, 1)
    verdicts = [judge(image.permute(1, 2, 0).numpy(), scene) for image, scene in zip(images, scenes)]
    return " ".join(f"{name} {value:.2f}" for name, value in summary(verdicts).items())


if __name__ == "__main__":
    training.run(DenoiserJob, sys.argv[1], steps=int(sys.argv[2]), batch=int(sys.argv[3]))
