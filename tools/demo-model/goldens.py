"""goldens.py MODEL OUT: pictures diffusers draws with the exported model, for `tests/pipeline/demo.rs`."""
import sys

import reference

CASES = {
    "circle": ("a red circle on a blue background", 256, 256, "K_EULER", 4, 0.0),
    "pair": ("a small yellow star above a green square", 256, 256, "HeunDiscrete", 4, 0.0),
    "moon": ("a white moon at night!", 320, 264, "K_EULER", 4, 3.0),
    "star": ("a large orange star on a green striped background", 512, 384, "K_EULER", 4, 0.0),
}

if __name__ == "__main__":
    model, out = sys.argv[1:]
    for name, (prompt, width, height, scheduler, steps, guidance) in CASES.items():
        picture = reference.draw(reference.pipeline(model, scheduler), prompt, 7, width, height, steps, guidance)
        picture.save(f"{out}/{name}.png", optimize=True)
