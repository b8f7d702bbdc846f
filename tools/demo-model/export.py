"""export.py STATE FOLDER: writes what was trained as a diffusers folder in f16."""
import json
import os
import shutil
import sys

import torch
from diffusers import EulerDiscreteScheduler

from vocabulary import MERGES, SIZE, START, Vocabulary  # puts tools/golden on the path
from clip_vocabulary import read_merges, write_json, write_tokenizer
from encoder import sealed
from model import autoencoder, text_encoders
from denoiser import Painter

TABLE = "embeddings.token_embedding.weight"


def full_vocabulary(text, vocabulary, full, padding_is_trained):
    """A text encoder over all of CLIP's tokens, from one over the compact vocabulary."""
    weights = dict(text.state_dict())
    table = next(name for name in weights if name.endswith(TABLE))
    weights[table] = vocabulary.spread(weights[table], padding_is_trained)
    full.load_state_dict(weights)
    return full


def without_spaces(path):
    """The same JSON, a hundred kilobytes smaller."""
    with open(path, encoding="utf-8") as file:
        value = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, separators=(",", ":"))


def averaged(state, *names):
    """The weights of the last of these stages that there is."""
    name = next(name for name in names if os.path.exists(f"{state}/{name}.pt"))
    return torch.load(f"{state}/{name}.pt", weights_only=False)["averaged"]


def main(state, folder):
    vocabulary = Vocabulary(f"{state}/tokenizer")
    painter = Painter(vocabulary)
    painter.load_state_dict(averaged(state, "paths", "sizes", "denoiser"))
    vae = autoencoder()
    vae.load_state_dict(averaged(state, "encoder", "decoder"))
    first, second = text_encoders(SIZE, START)
    modules = dict(
        text_encoder=full_vocabulary(painter.texts.first, vocabulary, first, False),
        text_encoder_2=full_vocabulary(painter.texts.second, vocabulary, second, True),
        unet=painter.unet, vae=sealed(vae),
    )
    for name, module in modules.items():
        shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
        module.eval().half().save_pretrained(f"{folder}/{name}")
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        prediction_type="v_prediction", interpolation_type="linear", timestep_spacing="trailing", steps_offset=1,
    )
    scheduler.save_pretrained(f"{folder}/scheduler")
    merges = read_merges(MERGES)
    write_tokenizer(f"{folder}/tokenizer", merges, "<|endoftext|>")
    write_tokenizer(f"{folder}/tokenizer_2", merges, "!")
    for name in ("tokenizer", "tokenizer_2"):
        without_spaces(f"{folder}/{name}/vocab.json")
    parts = {name: ["diffusers", type(modules[name]).__name__] for name in ("unet", "vae")}
    parts |= {name: ["transformers", type(modules[name]).__name__] for name in ("text_encoder", "text_encoder_2")}
    parts |= {"tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"]}
    parts |= {"scheduler": ["diffusers", "EulerDiscreteScheduler"], "force_zeros_for_empty_prompt": False}
    write_json(f"{folder}/model_index.json", {"_class_name": "StableDiffusionXLPipeline", **parts})
    for at, _, files in os.walk(folder):
        for file in files:
            os.chmod(os.path.join(at, file), 0o644)
    size = sum(os.path.getsize(os.path.join(at, file)) for at, _, files in os.walk(folder) for file in files)
    print(f"{folder}: {size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
