"""lora.py FIXTURES: one LoRA for the tiny model under the names peft, kohya and the original repository use, and the image
diffusers draws with it.

It changes attention, feed-forward, convolutions and both text encoders. Every file is loaded by diffusers itself, which
must draw the same image with each.
"""
import os
import sys

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline
from safetensors.torch import save_file

from tiny_model import PROMPT, SEED
from torch_cuda_noise import TorchCudaRng

RANK, ALPHA, SCALE = 3, 2.0, 0.8
# What the original repository calls blocks and layers, for the layers changed below.
ORIGINAL = {
    "down_blocks_1_attentions_0": "input_blocks_4_1", "down_blocks_2_attentions_1": "input_blocks_8_1",
    "mid_block_attentions_0": "middle_block_1", "up_blocks_0_attentions_2": "output_blocks_2_1",
    "up_blocks_1_attentions_0": "output_blocks_3_1",
}
LINEAR = ["transformer_blocks.0.attn1.to_q", "transformer_blocks.0.attn2.to_v", "transformer_blocks.0.attn1.to_out.0",
          "transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2", "proj_in", "proj_out"]
CONVOLUTIONS = ["down_blocks.0.resnets.0.conv1", "down_blocks.1.downsamplers.0.conv", "down_blocks.1.resnets.0.conv_shortcut"]


def changed_layers(pipe):
    blocks = ["down_blocks.1.attentions.0", "down_blocks.2.attentions.1", "mid_block.attentions.0",
              "up_blocks.0.attentions.2", "up_blocks.1.attentions.0"]
    yield from (("unet", f"{block}.{layer}") for block in blocks for layer in LINEAR)
    for name, encoder in (("text_encoder", pipe.text_encoder), ("text_encoder_2", pipe.text_encoder_2)):
        for layer, module in encoder.named_modules():
            if layer.endswith(("q_proj", "out_proj", "fc1")):
                yield name, layer


def parts(pipe, layers):
    """(component, layer, down, up) of each layer."""
    generator = torch.Generator().manual_seed(SEED)
    for component, layer in layers:
        weight = getattr(pipe, component).get_submodule(layer).weight
        down = torch.randn((RANK, *weight.shape[1:]), generator=generator) / weight[0].numel() ** 0.5
        up = torch.randn((weight.shape[0], RANK, *[1] * (weight.ndim - 2)), generator=generator)
        yield component, layer, down.half(), up.half()


def in_full(layer):
    return layer if layer.startswith("text_model") or "blocks" in layer else f"text_model.{layer}"


def peft(changes):
    tensors = {}
    for component, layer, down, up in changes:
        layer = in_full(layer) if component != "unet" else layer
        # This form has no alpha of its own: it is in the matrices.
        tensors[f"{component}.{layer}.lora_A.weight"] = down
        tensors[f"{component}.{layer}.lora_B.weight"] = up * (ALPHA / RANK)
    return tensors


def kohya(changes, original=False):
    prefixes = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    tensors = {}
    for component, layer, down, up in changes:
        layer = in_full(layer) if component != "unet" else layer
        flat = layer.replace(".", "_")
        if original and component == "unet":
            block = next(block for block in ORIGINAL if flat.startswith(block))
            flat = flat.replace(block, ORIGINAL[block], 1)
        name = f"{prefixes[component]}_{flat}"
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down, up
        tensors[f"{name}.alpha"] = torch.tensor(ALPHA).half()
    return tensors


def draw(pipe):
    latents = torch.from_numpy(TorchCudaRng(SEED).normal((1, 4, 8, 6)))
    with torch.no_grad():
        return pipe(prompt=PROMPT, num_inference_steps=4, width=48, height=64, latents=latents, guidance_scale=0.0).images[0]


def load(fixtures):
    pipe = StableDiffusionXLPipeline.from_pretrained(f"{fixtures}/tiny", torch_dtype=torch.float32, add_watermarker=False)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def merge(pipe, changes):
    """The definition, for the layers diffusers' own loader has no names for."""
    with torch.no_grad():
        for component, layer, down, up in changes:
            weight = getattr(pipe, component).get_submodule(layer).weight
            change = up.float().flatten(1) @ down.float().flatten(1)
            weight += SCALE * ALPHA / RANK * change.reshape(weight.shape)


def main(fixtures):
    torch.set_num_threads(1)
    out = f"{fixtures}/lora"
    os.makedirs(out, exist_ok=True)
    pipe = load(fixtures)
    changes = list(parts(pipe, changed_layers(pipe)))
    save_file(peft(changes), f"{out}/peft.safetensors")
    save_file(kohya(changes), f"{out}/kohya.safetensors")
    save_file(kohya(changes, original=True), f"{out}/original.safetensors")
    plain = np.asarray(draw(pipe)).astype(int)
    merge(pipe, changes)
    merged = draw(pipe)
    merged.save(f"{out}/image.png", optimize=True)
    print("changed by", np.abs(np.asarray(merged) - plain).mean(), "levels on average")
    for name in ("peft", "kohya", "original"):
        pipe = load(fixtures)
        pipe.load_lora_weights(out, weight_name=f"{name}.safetensors")
        pipe.fuse_lora(components=["unet", "text_encoder", "text_encoder_2"], lora_scale=SCALE)
        difference = np.abs(np.asarray(draw(pipe)).astype(int) - np.asarray(merged))
        print(name, "largest difference from the definition:", difference.max())
        assert difference.max() <= 1, name
    pipe = load(fixtures)
    convolutions = list(parts(pipe, (("unet", layer) for layer in CONVOLUTIONS)))
    save_file(kohya(convolutions), f"{out}/convolutions.safetensors")
    merge(pipe, convolutions)
    draw(pipe).save(f"{out}/convolutions.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1])
