"""safety_checker.py FIXTURES: a tiny safety checker in the diffusers folder layout, and what diffusers computes with it.

Its thresholds are placed between the images' own scores, so that each rule decides something. Weights are kept in f16, the numbers are those of the kept weights.
"""
import sys

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker, cosine_distance
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from images import picture
from tiny_model import random_weights

SIDE = 28
# Larger, smaller, wide, high, and one that is there already.
SIZES = [(61, 83), (64, 64), (90, 40), (17, 23), (28, 28)]


def pictures():
    """Each of other colors."""
    return [
        Image.fromarray(np.roll(np.asarray(picture(*size)), number, axis=2) // (1 + number % 3))
        for number, size in enumerate(SIZES)
    ]


def main(fixtures):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    vision = dict(
        hidden_size=24, intermediate_size=56, num_hidden_layers=3, num_attention_heads=3, image_size=SIDE, patch_size=7,
        hidden_act="quick_gelu",
    )
    config = CLIPConfig(vision_config=vision, projection_dim=20)
    checker = random_weights(StableDiffusionSafetyChecker(config), 5).half().float().eval()
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    images = pictures()
    pixels = processor(images, return_tensors="pt").pixel_values
    with torch.no_grad():
        embeds = checker.visual_projection(checker.vision_model(pixels)[1])
        concepts = cosine_distance(embeds, checker.concept_embeds)
        special = cosine_distance(embeds, checker.special_care_embeds)
        # Above every score but for two concepts. The first flags the one image that is nearest to it; the second the one
        # nearest to a special concept, and only because that makes it stricter by 0.01.
        checker.concept_embeds_weights.copy_(concepts.amax(0) + 0.05)
        checker.special_care_embeds_weights.copy_(special.amax(0) + 0.05)
        nearest, second = special[:, 1].topk(2)[0], int(special[:, 1].argmax())
        checker.special_care_embeds_weights[1] = nearest.mean()
        one = next(i for i in range(17) if int(concepts[:, i].argmax()) not in (second, 0))
        checker.concept_embeds_weights[one] = concepts[:, one].topk(2)[0].mean()
        other = next(i for i in range(17) if i != one and int(concepts[:, i].argmax()) == second)
        checker.concept_embeds_weights[other] = concepts[second, other] + 0.005
        print("special", special.numpy().round(3)[:, 1], "one", concepts[:, one], "other", concepts[:, other])
        checker.half().float()
        _, flagged = checker(pixels, [np.asarray(image) for image in images])
    print("flagged", flagged)
    assert sum(flagged) == 2 and flagged[second] and flagged[int(concepts[:, one].argmax())]
    # The checkpoint's names have a part twice that transformers 5 leaves away.
    state = {
        name.replace("vision_model.", "vision_model.vision_model.", 1): tensor.contiguous()
        for name, tensor in checker.half().state_dict().items()
    }
    out = f"{fixtures}/safety_checker"
    config.save_pretrained(out)
    save_file(state, f"{out}/model.safetensors")
    golden = dict(pixels=pixels, embeds=embeds, flagged=torch.tensor(flagged, dtype=torch.uint8))
    save_file({name: tensor.contiguous() for name, tensor in golden.items()}, f"{fixtures}/safety.safetensors")
    for number, image in enumerate(images):
        image.save(f"{fixtures}/images/checked-{number}.png", optimize=True)
    print(*state)


if __name__ == "__main__":
    main(sys.argv[1])
