"""encoder.py STATE STEPS: teaches the autoencoder's encoder the latents that the decoder already knows."""
import sys

import torch

import training
from decoder import pictures
from model import autoencoder, initialize, latents_of

# A standard deviation of exp(-20 / 2): sampling from the encoder's distribution then adds nothing that shows.
LOG_VARIANCE = -20.0


class EncoderJob(training.Job):
    name, muon_lr, adam_lr, clip, report_every, flat = "encoder", 0.01, 2e-3, 1.0, 10**9, 0.4

    def __init__(self, state, steps):
        self.steps = steps
        self.model = initialize(autoencoder())
        self.model.load_state_dict(torch.load(f"{state}/decoder.pt", weights_only=False)["averaged"])
        for part in (self.model.decoder, self.model.post_quant_conv):
            part.requires_grad_(False)

    def loss(self, step, progress, rng, rank):
        side, count = (64, 6) if progress < 0.5 else (128, 3) if progress < 0.8 else (256, 1)
        whole = pictures(rng, max(1, count // 2), 256, 256)
        crops = []
        for i in range(count):
            top, left = (rng.randint(0, (256 - side) // 8) * 8 for _ in range(2))
            crops.append(whole[i % len(whole), :, top : top + side, left : left + side])
        images = torch.stack(crops)
        # Any picture may come in, not only ours: some get noise, other contrasts and tints.
        if rng.random() < 0.4:
            images = images * torch.empty(count, 3, 1, 1).uniform_(0.4, 1) + torch.empty(count, 3, 1, 1).uniform_(-0.3, 0.3)
            images = (images + rng.random() * 0.2 * torch.randn_like(images)).clamp(-1, 1)
        mean = self.model.quant_conv(self.model.encoder(images))[:, :4]
        off = (mean - latents_of(images)).abs().mean()
        return off + 0.5 * ((mean - latents_of(images)) ** 2).mean(), dict(l1=off.item())


def sealed(model):
    """The same autoencoder with the encoder's variance fixed."""
    with torch.no_grad():
        model.quant_conv.weight[4:] = 0
        model.quant_conv.bias[4:] = LOG_VARIANCE
    return model


if __name__ == "__main__":
    training.run(EncoderJob, sys.argv[1], steps=int(sys.argv[2]))
