"""full_size.py FOLDER: SDXL at its full size with random f16 weights, 7 GB in the diffusers folder layout.

For measuring how fast weights load, how much memory a picture takes and how long: random weights cost what trained ones
do. The configurations are those of stabilityai/stable-diffusion-xl-base-1.0. Shapes are asked of diffusers and
transformers without allocating anything, and written a tensor at a time, so this needs little memory itself. The
requirements are those of `tools/golden`.
"""
import json
import os
import sys

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "golden"))
from clip_vocabulary import read_merges, write_json, write_tokenizer

TEXT = dict(vocab_size=49408, max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1)
UNET = dict(
    sample_size=128, in_channels=4, out_channels=4, flip_sin_to_cos=True, freq_shift=0,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(320, 640, 1280),
    layers_per_block=2, transformer_layers_per_block=[1, 2, 10], attention_head_dim=[5, 10, 20],
    cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time",
    addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
)
VAE = dict(
    in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
    latent_channels=4, norm_num_groups=32, sample_size=1024, scaling_factor=0.13025, force_upcast=True,
)
SCHEDULER = dict(
    _class_name="EulerDiscreteScheduler", beta_end=0.012, beta_schedule="scaled_linear", beta_start=0.00085,
    clip_sample=False, interpolation_type="linear", num_train_timesteps=1000, prediction_type="epsilon",
    sample_max_value=1.0, set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, timestep_spacing="leading",
    trained_betas=None, use_karras_sigmas=False,
)
# Normal numbers, of which every tensor takes as many as it needs from another place. They are there twice in a row, so
# that none has to go around the end.
POOL = 1 << 24


def modules():
    text = CLIPTextConfig(
        hidden_act="quick_gelu", hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768, **TEXT,
    )
    text_2 = CLIPTextConfig(
        hidden_act="gelu", hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
        projection_dim=1280, **TEXT,
    )
    with torch.device("meta"):
        yield "text_encoder", CLIPTextModel(text), "model"
        yield "text_encoder_2", CLIPTextModelWithProjection(text_2), "model"
        yield "unet", UNet2DConditionModel(**UNET), "diffusion_pytorch_model"
        yield "vae", AutoencoderKL(**VAE), "diffusion_pytorch_model"


def write_tensors(path, module, rng, pool):
    """A safetensors file of a module's parameters: matrices that keep the size of what they multiply, norms near one."""
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, shape in shapes.items():
            count = int(np.prod(shape))
            scale = 0.7 / (count / shape[0]) ** 0.5 if len(shape) > 1 else 0.02
            start = int(rng.integers(POOL))
            values = (pool[start : start + count] if count <= POOL else np.resize(pool, count)) * scale
            if len(shape) == 1 and name.endswith("weight"):
                values += 1
            file.write(values.astype("<f2"))
    print(path, os.path.getsize(path))


def main(out):
    rng = np.random.default_rng(0)
    pool = np.tile(rng.standard_normal(POOL, dtype=np.float32), 2)
    for name, module, stem in modules():
        os.makedirs(f"{out}/{name}", exist_ok=True)
        if hasattr(module, "save_config"):
            module.save_config(f"{out}/{name}")
        else:
            module.config.save_pretrained(f"{out}/{name}")
        write_tensors(f"{out}/{name}/{stem}.safetensors", module, rng, pool)
    os.makedirs(f"{out}/scheduler", exist_ok=True)
    write_json(f"{out}/scheduler/scheduler_config.json", SCHEDULER)
    merges = read_merges()
    write_tokenizer(f"{out}/tokenizer", merges, "<|endoftext|>")
    write_tokenizer(f"{out}/tokenizer_2", merges, "!")
    write_json(f"{out}/model_index.json", {"_class_name": "StableDiffusionXLPipeline", "force_zeros_for_empty_prompt": True})


if __name__ == "__main__":
    main(sys.argv[1])
