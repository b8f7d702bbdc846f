"""texts.py STATE STEPS: teaches the text encoders what the words mean, before there is a picture to draw.

They learn to name the attributes of a scene from its caption. Without it the UNet has to discover the words through
its own noise, which takes it many times longer.
"""
import sys

import torch
from torch import nn
from torch.nn import functional as F

import training
from captions import caption
from model import POOLED, WIDTHS, Texts
from scenes import COLORS, PATTERNS, POSITIONS, RADII, RELATIONS, SHAPES, SKIES, random_scene
from vocabulary import Vocabulary

ATTRIBUTES = {
    "shape": SHAPES, "color": [*COLORS], "size": [*RADII], "shape_2": SHAPES, "color_2": [*COLORS], "size_2": [*RADII],
    "place": [*POSITIONS, *RELATIONS], "background": [*COLORS, *SKIES], "pattern": PATTERNS,
}


def attributes(scene):
    found = dict(place=scene.place, background=scene.background, pattern=scene.pattern)
    for suffix, thing in zip(("", "_2"), scene.things):
        found |= {f"shape{suffix}": thing.shape, f"color{suffix}": thing.color, f"size{suffix}": thing.size}
    return found


class Reader(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.texts = Texts(vocabulary.rows, vocabulary.start)
        self.heads = nn.ModuleDict(
            {
                f"{place}_{name}": nn.Linear(width, len(values))
                for place, width in (("pooled", POOLED), ("states", sum(WIDTHS)))
                for name, values in ATTRIBUTES.items()
            }
        )


class TextJob(training.Job):
    name, text_lr, batch, clip, report_every, flat = "texts", 3e-3, 64, 1.0, 10**9, 0.3

    def __init__(self, state, steps):
        self.steps = steps
        self.vocabulary = Vocabulary(f"{state}/tokenizer")
        self.model = Reader(self.vocabulary)

    def loss(self, step, progress, rng, rank):
        scenes = [random_scene(rng) for _ in range(self.batch)]
        first, second = self.vocabulary.encode([caption(scene, rng) for scene in scenes], rng)
        length = int((first == self.vocabulary.end).int().argmax(1).max()) + 1
        states, pooled = self.model.texts(first[:, :length], second[:, :length])
        ends = (first == self.vocabulary.end).int().argmax(1)
        read = dict(pooled=pooled, states=states[torch.arange(len(scenes)), ends])
        found = [attributes(scene) for scene in scenes]
        loss, wrong = 0, {}
        for name, values in ATTRIBUTES.items():
            wanted = torch.tensor([values.index(f[name]) if name in f else -100 for f in found])
            for place, states in read.items():
                scores = self.model.heads[f"{place}_{name}"](states)
                loss = loss + F.cross_entropy(scores, wanted)
                hits = (scores.argmax(1) == wanted)[wanted >= 0].float().mean().item()
                wrong[f"{place[0]}_{name}"] = 1 - hits
        return loss, dict(loss=loss.item(), **wrong)


if __name__ == "__main__":
    training.run(TextJob, sys.argv[1], steps=int(sys.argv[2]))
