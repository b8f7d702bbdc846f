"""resume.py FOLDER STATE: an exported folder as a state again, so that training can go on from the shipped weights.

The denoiser and the autoencoder count as trained; what comes after them is still to do.
"""
import os
import sys

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from denoiser import Painter
from export import TABLE
from vocabulary import Vocabulary


def main(folder, state):
    os.makedirs(state, exist_ok=True)
    vocabulary = Vocabulary(f"{state}/tokenizer")
    painter = Painter(vocabulary)
    texts = dict(text_encoder=(CLIPTextModel, painter.texts.first),
                 text_encoder_2=(CLIPTextModelWithProjection, painter.texts.second))
    for name, (kind, text) in texts.items():
        weights = kind.from_pretrained(f"{folder}/{name}", dtype=torch.float32).state_dict()
        table = next(key for key in weights if key.endswith(TABLE))
        text.load_state_dict({**weights, table: vocabulary.gathered(weights[table])})
    unet = UNet2DConditionModel.from_pretrained(f"{folder}/unet", torch_dtype=torch.float32)
    painter.unet.load_state_dict(unet.state_dict())
    vae = AutoencoderKL.from_pretrained(f"{folder}/vae", torch_dtype=torch.float32)
    for name, model in (("denoiser", painter), ("encoder", vae)):
        torch.save(dict(averaged=model.state_dict()), f"{state}/{name}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
