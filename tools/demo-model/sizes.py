"""sizes.py STATE STEPS BATCH: goes on with the UNet at all sizes from 256 to 512 pixels a side.

A picture of 512 x 512 is a task of its own. Its objects have twice the extent in latents, the convolutions' features do
not, and what tells a place is the padding at the borders, which is twice as far away. One process learns all those
sizes. The other keeps to the native one, so that it stays as good, and later gives every second batch to the rest.
"""
import random
import sys

import torch

import training
from denoiser import PHASES, DenoiserJob, Painter, report
from vocabulary import Vocabulary

LEAST, MOST = 32, 64
# Up to this step one process sees nothing but the native size.
NATIVE = 1000


class SizesJob(DenoiserJob):
    name, report_every = "sizes", 1000
    muon_lr, adam_lr, text_lr, flat = 0.004, 8e-4, 2e-4, 0.84
    average = 0.99

    def __init__(self, state, steps, batch):
        self.steps, self.batch = steps, batch
        self.vocabulary = Vocabulary(f"{state}/tokenizer")
        self.model = Painter(self.vocabulary)
        self.model.load_state_dict(torch.load(f"{state}/denoiser.pt", weights_only=False)["averaged"])
        self.means = torch.ones(14)

    def phase(self, step):
        return PHASES[-1]

    def goal(self, step):
        """Of the run's 2500 steps, the last 153 fall faster: its time was up."""
        return self.steps if step >= self.steps * 2347 // 2500 else self.steps * 2700 / 2500

    def size(self, step, progress, rank):
        rng = random.Random(f"{'native' if rank == 0 else 'size'} {self.seed} {step}")
        if rank == 0 and (step < NATIVE or rng.random() < 0.5):
            return (32, 32)
        kind = rng.random()
        if kind < 0.4:
            return (64, 64)
        if kind < 0.6:
            return (48, 48)
        # Most people ask for round numbers.
        grain = 4 if kind < 0.9 else 1
        return tuple(rng.randrange(LEAST, MOST + 1, grain) for _ in range(2))

    def report(self, averaged):
        return "; ".join(
            f"{side}: {report(averaged, self.vocabulary, side, count)}" for side, count in ((256, 32), (384, 16), (512, 24))
        )


if __name__ == "__main__":
    training.run(SizesJob, sys.argv[1], steps=int(sys.argv[2]), batch=int(sys.argv[3]))
