"""clip_vocabulary.py OUT_DIR: CLIP's merges, as SDXL's folders hold them.

They are in the wheel of open_clip_torch 3.3.0, which carries OpenAI's bpe_simple_vocab_16e6.txt.gz (MIT).
"""
import glob
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile

SHA256 = "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
MERGES = 49152 - 256 - 2
# One copy for everybody: the demo model's, which has all of them.
MERGES_FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "assets", "demo", "tokenizer")


def byte_symbols():
    """One character for each byte: itself where it is printable."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def vocabulary(merges):
    """The vocabulary that follows from the merges."""
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols] + ["".join(merge.split()) for merge in merges]
    return {token: i for i, token in enumerate(tokens + ["<|startoftext|>", "<|endoftext|>"])}


def special(content):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def write_tokenizer(folder, merges, pad_token):
    """A tokenizer's folder as SDXL base has it: no tokenizer.json."""
    os.makedirs(folder, exist_ok=True)
    start, end = special("<|startoftext|>"), special("<|endoftext|>")
    tokens = {"bos_token": start, "eos_token": end, "pad_token": pad_token, "unk_token": end}
    config = {"model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer", "pad_token": pad_token}
    write_json(f"{folder}/vocab.json", vocabulary(merges))
    write_json(f"{folder}/special_tokens_map.json", tokens)
    write_json(f"{folder}/tokenizer_config.json", config)
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(merge + "\n" for merge in merges))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False)


def read_merges(folder=MERGES_FOLDER):
    with open(f"{folder}/merges.txt", encoding="utf-8") as file:
        return file.read().split("\n")[1:-1]


def main(out):
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "open_clip_torch==3.3.0"]
        subprocess.check_call(download)
        with zipfile.ZipFile(glob.glob(f"{folder}/*.whl")[0]) as wheel:
            packed = wheel.read("open_clip/bpe_simple_vocab_16e6.txt.gz")
    assert hashlib.sha256(packed).hexdigest() == SHA256
    merges = gzip.decompress(packed).decode().split("\n")[1 : MERGES + 1]
    with open(f"{out}/merges.txt", "w", encoding="utf-8") as file:
        file.write("#version: 0.2\n" + "".join(merge + "\n" for merge in merges))


if __name__ == "__main__":
    main(sys.argv[1])
