"""A compact vocabulary to train with: the words of the captions, and one row for all others.

CLIP's 49408 rows would be 98 % of the text encoders' weights, and most would never see a gradient. The unknown row is
trained by inserting it into captions, and copied to every row that no caption uses when the model is exported.
"""
import os
import random
import shutil
import sys

import torch
from transformers import CLIPTokenizer

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "golden"))
from clip_vocabulary import read_merges, write_tokenizer

from captions import caption
from scenes import random_scene

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES = os.path.join(HERE, "..", "..", "assets", "demo", "tokenizer")
SIZE, START, END, EXCLAMATION, LENGTH = 49408, 49406, 49407, 0, 77
UNKNOWN, PADDING = 0, 1


def write_once(folder):
    """The tokenizer's files, whole or not at all: two processes come here at the same time."""
    half = f"{folder}.{os.getpid()}"
    write_tokenizer(half, read_merges(MERGES), "<|endoftext|>")
    try:
        os.rename(half, folder)
    except OSError:
        # The other one was quicker.
        shutil.rmtree(half)


class Vocabulary:
    def __init__(self, folder):
        if not os.path.exists(folder):
            write_once(folder)
        self.tokenizer = CLIPTokenizer.from_pretrained(folder)
        self.words = {}
        rng = random.Random("vocabulary")
        known = {token for _ in range(6000) for token in self.tokens(caption(random_scene(rng), rng))}
        self.known = sorted(known - {EXCLAMATION})
        self.row = {token: row + 2 for row, token in enumerate(self.known)}
        self.start, self.end = len(self.known) + 2, len(self.known) + 3
        self.rows = len(self.known) + 4

    def tokens(self, text):
        words = text.replace(",", " ,").replace(".", " .").replace(":", " :").split()
        for word in words:
            if word not in self.words:
                self.words[word] = self.tokenizer(word)["input_ids"][1:-1]
        return [token for word in words for token in self.words[word]]

    def encode(self, texts, rng=None):
        """Rows for both text encoders, which pad differently. With `rng`, a quarter gets unknown words."""
        first = torch.full((len(texts), LENGTH), self.end)
        second = torch.full((len(texts), LENGTH), PADDING)
        for i, text in enumerate(texts):
            rows = [self.row.get(token, UNKNOWN) for token in self.tokens(text)]
            if rng and text and rng.random() < 0.25:
                for _ in range(rng.randint(1, 4)):
                    rows.insert(rng.choice([0, len(rows), rng.randint(0, len(rows))]), UNKNOWN)
            rows = torch.tensor([self.start, *rows[: LENGTH - 2], self.end])
            first[i, : len(rows)] = rows
            second[i, : len(rows)] = rows
        return first, second

    def spread(self, table, padding_is_trained):
        """The full table of embeddings from a compact one."""
        full = table[UNKNOWN].repeat(SIZE, 1)
        full[torch.tensor(self.known)] = table[2 : 2 + len(self.known)]
        full[START], full[END] = table[self.start], table[self.end]
        if padding_is_trained:
            full[EXCLAMATION] = table[PADDING]
        return full

    def gathered(self, full):
        """The compact table from a full one: the other way round."""
        unknown = next(token for token in range(1, SIZE) if token not in self.row)
        rows = [unknown, EXCLAMATION, *self.known, START, END]
        return full[torch.tensor(rows)]
