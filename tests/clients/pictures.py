"""What both of Replicate's Python clients are asked for, and what they must bring."""

import os

MODEL = "bytedance/sdxl-lightning-4step"
VERSION = "5599ed30703defd1d160a25a63321b4dec97101d98b4674bcc56e41f62f35637"
SMALL = {"prompt": "a cat", "width": 256, "height": 256}
# Thirty steps of a tenth of a second.
THREE_SECONDS = {**SMALL, "num_outputs": 3, "num_inference_steps": 10}

server, key = os.environ["FOURSTEP_URL"], os.environ["FOURSTEP_KEY"]


def assert_pictures(output, count, kind):
    assert isinstance(output, list) and len(output) == count, output
    for picture in output:
        assert isinstance(picture, kind), type(picture)
        assert picture.read().startswith(b"\x89PNG\r\n"), "not a PNG"
