"""tiny_model.py FIXTURES: a tiny random SDXL in the diffusers folder layout, and what diffusers computes with it in f32.

Every dimension differs from its neighbors where SDXL allows it, so that a mixed-up one shows. Weights are kept in f16,
and the golden numbers are those of the kept weights.
"""
import sys

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from clip_vocabulary import read_merges, write_json, write_tokenizer
from torch_cuda_noise import TorchCudaRng

PROMPT = "a photo! of the man and his cats, it's 🙂"
NEGATIVE = "low quality"
SEED = 1234
MERGES = 500


def random_weights(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * 0.7 / parameter[0].numel() ** 0.5)
            else:
                parameter.add_(0.1 * noise)
    return module.eval()


# Each differs from the others in every dimension that SDXL leaves open.
TINY = dict(
    text=dict(hidden_size=24, intermediate_size=56, num_hidden_layers=3, num_attention_heads=3, projection_dim=24),
    text_2=dict(hidden_size=40, intermediate_size=88, num_hidden_layers=4, num_attention_heads=4, projection_dim=28),
    unet=dict(
        sample_size=8, block_out_channels=(16, 32, 48), layers_per_block=2, norm_num_groups=8,
        transformer_layers_per_block=[1, 1, 2], attention_head_dim=[1, 2, 3], addition_time_embed_dim=8,
    ),
    vae=dict(
        block_out_channels=(8, 16, 24, 32), layers_per_block=1, norm_num_groups=4, sample_size=64,
        scaling_factor=0.13025,
    ),
    scheduler=dict(prediction_type="epsilon"), force_zeros_for_empty_prompt=True,
)


def write_model(folder, merges, dimensions=TINY):
    vocabulary = 512 + len(merges) + 2
    text = dict(
        vocab_size=vocabulary, max_position_embeddings=77, bos_token_id=vocabulary - 2, eos_token_id=2, pad_token_id=1
    )
    text_1, text_2, unet = (dimensions[part] for part in ("text", "text_2", "unet"))
    text_encoder = CLIPTextModel(CLIPTextConfig(hidden_act="quick_gelu", **text_1, **text))
    text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="gelu", **text_2, **text))
    unet = UNet2DConditionModel(
        in_channels=4, out_channels=4, flip_sin_to_cos=True, freq_shift=0,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), use_linear_projection=True,
        cross_attention_dim=text_1["hidden_size"] + text_2["hidden_size"], addition_embed_type="text_time",
        projection_class_embeddings_input_dim=text_2["projection_dim"] + 6 * unet["addition_time_embed_dim"], **unet,
    )
    vae = AutoencoderKL(
        in_channels=3, out_channels=3, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, force_upcast=False, **dimensions["vae"],
    )
    scheduler = EulerDiscreteScheduler(
        beta_end=0.012, beta_schedule="scaled_linear", beta_start=0.00085, interpolation_type="linear",
        num_train_timesteps=1000, steps_offset=1, timestep_spacing="leading", **dimensions["scheduler"],
    )
    modules = dict(text_encoder=text_encoder, text_encoder_2=text_encoder_2, unet=unet, vae=vae)
    for seed, (name, module) in enumerate(modules.items()):
        random_weights(module, seed).half().save_pretrained(f"{folder}/{name}")
    scheduler.save_pretrained(f"{folder}/scheduler")
    write_tokenizer(f"{folder}/tokenizer", merges, "<|endoftext|>")
    write_tokenizer(f"{folder}/tokenizer_2", merges, "!")
    parts = {name: ["diffusers", type(module).__name__] for name, module in dict(unet=unet, vae=vae).items()}
    parts |= {name: ["transformers", type(modules[name]).__name__] for name in ("text_encoder", "text_encoder_2")}
    parts |= {"tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "CLIPTokenizer"]}
    parts |= {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    parts |= {"force_zeros_for_empty_prompt": dimensions["force_zeros_for_empty_prompt"]}
    write_json(f"{folder}/model_index.json", {"_class_name": "StableDiffusionXLPipeline", **parts})


def text_to_image(pipe, name, golden, width, height, **arguments):
    """A whole image: the latents after each step, and the pixels."""
    latents = TorchCudaRng(SEED).normal((1, 4, height // 8, width // 8))
    steps = []

    def note(pipe, index, timestep, kwargs):
        steps.append(kwargs["latents"].clone())
        return {}

    image = pipe(
        prompt=PROMPT, num_inference_steps=4, width=width, height=height, latents=torch.from_numpy(latents),
        output_type="np", callback_on_step_end=note, **arguments,
    ).images[0]
    golden[f"{name}.steps"] = torch.cat(steps)
    golden[f"{name}.image"] = torch.from_numpy(image * 255).round().to(torch.uint8)


def main(out):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    folder = f"{out}/tiny"
    write_model(folder, read_merges()[:MERGES])
    pipe = StableDiffusionXLPipeline.from_pretrained(folder, torch_dtype=torch.float32, add_watermarker=False)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    pipe.set_progress_bar_config(disable=True)
    golden = {}
    with torch.no_grad():
        ids = dict(padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        golden["ids"] = pipe.tokenizer(PROMPT, **ids).input_ids[0].int()
        golden["ids_2"] = pipe.tokenizer_2(PROMPT, **ids).input_ids[0].int()
        embeds = pipe.encode_prompt(PROMPT, device="cpu", do_classifier_free_guidance=True, negative_prompt=NEGATIVE)
        positive, negative, pooled, negative_pooled = embeds
        golden["prompt_embeds"] = torch.cat([negative, positive])
        golden["pooled"] = torch.cat([negative_pooled, pooled])
        for width, height in ((6, 8), (7, 9)):
            x = torch.from_numpy(TorchCudaRng(SEED).normal((2, 4, height, width)))
            time_ids = torch.tensor([[8.0 * height, 8.0 * width, 0.0, 0.0, 8.0 * height, 8.0 * width]] * 2)
            added = dict(text_embeds=golden["pooled"], time_ids=time_ids)
            for timestep in (999.0, 249.0, 0.0):
                name = f"unet.{width}x{height}.t{timestep:.0f}"
                t = torch.tensor(timestep)
                golden[name] = pipe.unet(x, t, golden["prompt_embeds"], added_cond_kwargs=added).sample
            pixels = torch.from_numpy(TorchCudaRng(SEED).normal((1, 3, 8 * height, 8 * width))).clamp(-1, 1)
            golden[f"vae.{width}x{height}.decoded"] = pipe.vae.decode(x[:1]).sample
            distribution = pipe.vae.encode(pixels).latent_dist
            golden[f"vae.{width}x{height}.mean"] = distribution.mean
            golden[f"vae.{width}x{height}.logvar"] = distribution.logvar
        text_to_image(pipe, "plain", golden, 48, 64, guidance_scale=0.0)
        text_to_image(pipe, "odd", golden, 56, 72, guidance_scale=0.0)
        text_to_image(pipe, "guided", golden, 48, 64, guidance_scale=7.5, negative_prompt=NEGATIVE)
        text_to_image(pipe, "guided_without_negative", golden, 48, 64, guidance_scale=7.5)
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, f"{out}/golden.safetensors")
    for name, tensor in golden.items():
        print(name, tuple(tensor.shape), float(tensor.float().abs().mean()))


if __name__ == "__main__":
    main(sys.argv[1])
