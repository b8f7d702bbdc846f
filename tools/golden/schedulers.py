"""schedulers.py FIXTURES: what diffusers' schedulers make of a fixed function in the UNet's place.

They are set up as the hosted model sets them up, from SDXL base's configuration with trailing timesteps. The ancestral ones
are given noise from a list, so that every step can be compared.
"""
import json
import sys
from types import SimpleNamespace

import diffusers.schedulers.scheduling_euler_ancestral_discrete as euler_ancestral
import diffusers.schedulers.scheduling_k_dpm_2_ancestral_discrete as k_dpm_2_ancestral
import numpy as np
import torch
from diffusers import (
    DDIMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler,
    HeunDiscreteScheduler, KDPM2AncestralDiscreteScheduler, PNDMScheduler, StableDiffusionXLImg2ImgPipeline,
)

# scheduler/scheduler_config.json of stabilityai/stable-diffusion-xl-base-1.0
BASE = {
    "_class_name": "EulerDiscreteScheduler", "_diffusers_version": "0.19.0.dev0", "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False, "interpolation_type": "linear",
    "num_train_timesteps": 1000, "prediction_type": "epsilon", "sample_max_value": 1.0, "set_alpha_to_one": False,
    "skip_prk_steps": True, "steps_offset": 1, "timestep_spacing": "leading", "trained_betas": None,
    "use_karras_sigmas": False,
}
SILENT = {key: value for key, value in BASE.items() if key not in ("clip_sample", "set_alpha_to_one")}
CONFIGS = {
    "base": BASE,
    "v_prediction": BASE | {"prediction_type": "v_prediction"},
    "sample": BASE | {"prediction_type": "sample"},
    "zero_snr": BASE | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "linear": BASE | {"beta_schedule": "linear", "num_train_timesteps": 500},
    "silent": SILENT,
    "clipped": BASE | {"clip_sample": True, "clip_sample_range": 0.75, "set_alpha_to_one": True},
    "clipped_sample": BASE | {"clip_sample": True, "prediction_type": "sample"},
}
CLASSES = {
    "DDIM": DDIMScheduler,
    "DPMSolverMultistep": DPMSolverMultistepScheduler,
    "HeunDiscrete": HeunDiscreteScheduler,
    "KarrasDPM": DPMSolverMultistepScheduler,
    "K_EULER_ANCESTRAL": EulerAncestralDiscreteScheduler,
    "K_EULER": EulerDiscreteScheduler,
    "PNDM": PNDMScheduler,
    "DPM++2MSDE": KDPM2AncestralDiscreteScheduler,
}
STEPS = range(1, 11)
STRENGTHS = (None, 0.5, 0.8, 1.0)
# Of these step counts two strengths are enough: the fixtures have a limit to their size.
FEWER = {5: (None, 0.8), 6: (None, 0.8), 9: (None, 0.8)}
SHAPE = (1, 4, 1, 2)

draws = []


def normal(seed):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(SHAPE).astype(np.float32))


def next_noise(shape, generator=None, device=None, dtype=None):
    draws.append(normal(1000 + len(draws)))
    return draws[-1]


euler_ancestral.randn_tensor = k_dpm_2_ancestral.randn_tensor = next_noise


def model(x, timestep):
    """Not linear, and without functions that one library rounds unlike another: steps amplify that where sigmas are large."""
    return 0.6 * x + 0.4 * x / (1.0 + x * x) + torch.tensor(float(timestep)) / 10000.0


def numbers(values):
    """The shortest decimals that are these f32 numbers."""
    return [float(str(np.float32(value))) for value in torch.as_tensor(values).flatten()]


def trajectory(name, config, steps, strength):
    karras = {"use_karras_sigmas": True} if name == "KarrasDPM" else {}
    read = EulerDiscreteScheduler.from_config(CONFIGS[config]).config
    scheduler = CLASSES[name].from_config(read, timestep_spacing="trailing", **karras)
    scheduler.set_timesteps(steps)
    noise, original = normal(7), normal(8)
    if strength is None:
        timesteps, begin_index = scheduler.timesteps, 0
        x = noise * scheduler.init_noise_sigma
    else:
        pipeline = SimpleNamespace(scheduler=scheduler)
        timesteps, left = StableDiffusionXLImg2ImgPipeline.get_timesteps(pipeline, steps, strength, "cpu")
        if left < 1:  # StableDiffusionXLImg2ImgPipeline.__call__ raises
            return None
        begin_index = (steps - left) * scheduler.order
        x = scheduler.add_noise(original, noise, timesteps[:1])
    draws.clear()
    case = {
        "scheduler": name, "config": config, "num_inference_steps": steps, "strength": strength,
        "begin_index": begin_index, "init_noise_sigma": numbers(scheduler.init_noise_sigma)[0],
        "timesteps": numbers(timesteps),
        # One a call. DDIM and PNDM have none.
        "sigmas": numbers(scheduler.sigmas[begin_index : begin_index + len(timesteps)])
        if hasattr(scheduler, "sigmas") else None,
        "start": numbers(x), "latents": [],
    }
    for timestep in timesteps:
        output = model(scheduler.scale_model_input(x, timestep), timestep)
        x = scheduler.step(output, timestep, x, return_dict=False)[0]
        case["latents"].append(numbers(x))
    case["draws"] = len(draws)
    return case


def cases():
    for name in CLASSES:
        for steps in STEPS:
            for strength in FEWER.get(steps, STRENGTHS):
                yield name, "base", steps, strength
        for config in CONFIGS:
            known = config != "sample" or name not in ("K_EULER_ANCESTRAL", "PNDM", "DPM++2MSDE")
            if config != "base" and known and (config != "clipped_sample" or name in ("DDIM", "HeunDiscrete")):
                for steps, strength in ((1, None), (4, None), (7, None), (4, 0.8)):
                    yield name, config, steps, strength


def main(out):
    made = [case for case in (trajectory(*case) for case in cases()) if case]
    golden = {
        "original": numbers(normal(8)), "noise": numbers(normal(7)),
        "draws": [numbers(normal(1000 + draw)) for draw in range(max(case["draws"] for case in made))],
        "configs": CONFIGS,
    }
    with open(f"{out}/schedulers.json", "w") as file:
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items()]
        lines.append('"cases": [\n' + ",\n".join(json.dumps(case) for case in made) + "\n]")
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(made), "cases")


if __name__ == "__main__":
    main(sys.argv[1])
