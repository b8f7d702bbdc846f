"""pipeline.py WEIGHTS [--device cuda:0] [--peers DIR] [--candle PROGRAM] [--compile] [--sizes 512,1024] [--dtypes f32,f16] [--runs 3] [--fourstep PROGRAM]

SDXL on this machine's CPU or GPU, ours and diffusers' in one run, as one table. WEIGHTS is a model in the diffusers folder
layout; `tools/full_size.py` makes one that costs what the real one does; in f32 it takes 8 GB here and 18 in diffusers. DIR is a Python environment with diffusers, PROGRAM what `benches/candle` builds: the SDXL that comes with candle. Without
DIR the table has no ratios. `benches/README.md` keeps results.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT = "a lighthouse on a cliff at sunset"
# GFLOP of a UNet call and of a VAE decode at these sizes: torch's FlopCounterMode on the full model, two for each
# multiplication and addition.
WORK = {512: (1588.8, 2514.5), 1024: (6761.2, 10470.4)}


def generate(program, weights, size, dtype, device, seed, pictures=1):
    """What `--timings` says of a process that draws so many pictures. A dtype may have what it is quantized to: bf16+int8."""
    dtype, *quantize = dtype.split("+")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            program, "generate", "--weights", weights, "--prompt", PROMPT, "--seed", str(seed), "--timings",
            "--width", str(size), "--height", str(size), "--dtype", dtype, "--device", device,
            "--num-outputs", str(pictures), "--out", f"{folder}/picture.png",
            *(option for kind in quantize for option in ("--quantize", kind)),
        ]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def ours(program, weights, size, dtype, device, runs):
    """So many pictures of one process, after those that warm it up: on a GPU the first loads kernels and makes plans, the
    others are what the UNet's calls are recorded from (src/pipeline/unet/graphs.rs); on a CPU one, as diffusers has, maps memory."""
    warm = 1 if device == "cpu" else 3
    one = generate(program, weights, size, dtype, device, 0)
    all = generate(program, weights, size, dtype, device, 0, warm + runs)
    calls = len(one["steps_s"])
    decode = (all["decode_s"] - one["decode_s"]) / (warm + runs - 1)
    pictures = [all["steps_s"][calls * number:calls * (number + 1)] for number in range(warm, warm + runs)]
    # The text is encoded once for all of them, and by a process that has just begun: the quicker of two.
    encode = min(one["encode_s"], all["encode_s"])
    return {
        "load_s": one["load_s"],
        "encode_s": encode,
        "steps_s": [step for steps in pictures for step in steps],
        "decode_s": decode,
        "image_s": [encode + sum(steps) + decode for steps in pictures],
        "peak_rss_mib": all["peak_rss_mib"],
    }


def diffusers(environment, weights, size, dtype, device, runs, *how):
    python = os.path.join(environment, "bin", "python")
    names = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
    script = os.path.join(HERE, "peer_diffusers.py")
    command = [python, script, weights, str(size), names[dtype], str(runs), device, *how]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout.splitlines()[-1])


def candle(program, weights, size):
    """One picture of candle's own SDXL, which takes minutes."""
    command = [program, weights, str(size), "1"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def processor(device):
    if device != "cpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        return subprocess.run(query, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with open("/proc/cpuinfo") as lines:
        flags = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    matrix = "with" if "amx_bf16" in flags.get("flags", "") else "without"
    return f"{flags.get('model name', '?')}, {os.cpu_count()} cores, {matrix} matrix units"


def row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def table(size, columns, peak):
    """Every stage's median; ratios to diffusers', where it ran, which is the first column."""
    names = list(columns)
    print(f"\n{size} x {size}, medians" + (f"; (ratio to {names[0]}, share of {peak:.0f} GFLOP/s)" if peak else "") + "\n")
    row([""] + names)
    row(["---"] * (len(names) + 1))
    reference = columns[names[0]] if peak else None
    unet, vae = WORK.get(size, (None, None))
    stages = [
        ("load", "load_s", None), ("text encoders", "encode_s", None), ("UNet call", "steps_s", unet),
        ("VAE decode", "decode_s", vae), ("image of four steps", "image_s", 4 * unet + vae if unet else None),
    ]
    value = lambda result, key: statistics.median(result[key]) if isinstance(result[key], list) else result[key]
    for title, key, work in stages:
        cells = [title]
        for result in columns.values():
            seconds = value(result, key)
            notes = []
            if reference and result is not reference:
                notes.append(f"{seconds / value(reference, key):.2f} x")
            if peak and work:
                notes.append(f"{work / seconds / peak:.0%}")
            took = f"{seconds:.2f} s" if seconds > 1 else f"{1000 * seconds:.1f} ms"
            cells.append(took + (f" ({', '.join(notes)})" if notes else ""))
        row(cells)
    cells = ["peak memory"]
    for result in columns.values():
        ratio = f" ({result['peak_rss_mib'] / reference['peak_rss_mib']:.2f} x)" if reference and result is not reference else ""
        cells.append(f"{result['peak_rss_mib'] / 1024:.1f} GiB{ratio}")
    row(cells)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--peers", help="a Python environment with diffusers")
    parser.add_argument("--candle", metavar="PROGRAM", help="candle's own SDXL, on a CPU")
    parser.add_argument("--compile", action="store_true", help="diffusers a second time, through torch.compile")
    parser.add_argument("--sizes", default="512")
    parser.add_argument("--dtypes", default="f32,f16")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--fourstep", default=os.path.join(HERE, "..", "target", "release", "fourstep"))
    arguments = parser.parse_args()
    device = arguments.device
    print(processor(device))
    for size in map(int, arguments.sizes.split(",")):
        columns, peak = {}, None
        measured = (arguments.weights, size)
        if arguments.peers:
            # What diffusers is fastest with.
            dtype = "f32" if device == "cpu" else "f16"
            peer = diffusers(arguments.peers, *measured, dtype, device, arguments.runs)
            columns[f"diffusers {dtype}"], peak = peer, peer["matrix_gflops"]
            print(peer["versions"], file=sys.stderr)
            if arguments.compile:
                peer = diffusers(arguments.peers, *measured, dtype, device, arguments.runs, "compile")
                columns[f"diffusers {dtype}, compiled"] = peer
        if arguments.candle and device == "cpu":
            columns["candle f32"] = candle(arguments.candle, *measured)
        for dtype in arguments.dtypes.split(","):
            columns[f"ours, {dtype}"] = ours(arguments.fourstep, *measured, dtype, device, arguments.runs)
        table(size, columns, peak)


if __name__ == "__main__":
    main()
