"""tokens.py FIXTURES: what transformers' CLIPTokenizer makes of many texts, with CLIP's whole vocabulary.

Ids are kept up to and including the end token; the rest of the 77 is padding.
"""
import random
import sys
import tempfile

from transformers import CLIPTokenizer

from clip_vocabulary import read_merges, write_json, write_tokenizer

TEXTS = """

a
a photo of an astronaut riding a horse on mars
A Photo Of An ASTRONAUT
hello! world!!
!
!!!!! a!b !c d!
wow!!1!one
it's the cat's, they've, we'll, I'd, you're, don't, I'm
IT'S THE CAT'S
rock'n'roll 'quoted' ''double''
2024-11-23 12:34:56.789
1girl, 2boys, 1234567890
3.14159 x 10^-7
(masterpiece:1.2), [best quality], {detailed}
<lora:detail:0.8> , , ,, ...
user@example.com https://example.com/a?b=c&d=e#f
C++ / C# \\ | ~ ` @ # $ % ^ & * ( ) _ + - =
🙂
a 🐱 and a 🐶 under a 🌈
👨‍👩‍👧‍👦 family 🏳️‍🌈 🇩🇪
一只猫坐在月亮上
東京の夜、ネオンの光
서울의 밤
Привет, мир!
Γειά σου Κόσμε
مرحبا بالعالم
שלום עולם
नमस्ते दुनिया
สวัสดีชาวโลก
ﬁ ﬂ ligatures ½ ² ™ ①
ｆｕｌｌ ｗｉｄｔｈ ！
café naïve façade Ångström
café with a combining accent
İstanbul ıssız ß ẞ ﬀ
zero​width and soft­hyphen
tabs	and   many    spaces   
<|startoftext|>
<|endoftext|>
a<|endoftext|>b <|STARTOFTEXT|> c
<|endoftext
don’t “smart” quotes — dashes – and… ellipsis
x̲ z̴̝a̷l̶g̵o̸
𝕳𝖊𝖑𝖑𝖔 𝓌𝑜𝓇𝓁𝒹
supercalifragilisticexpialidocious antidisestablishmentarianism
aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
a-b_c.d/e:f;g,h
"double" 'single' `back`
NULL \\n \\t \\0
""".split("\n")[1:-1]
TEXTS += ["line\nbreaks\r\nand\ttabs\x0b\x0c", "\x00\x01\x7f control", "   ", "\u00a0no-break\u2003em space\u3000ideographic"]
TEXTS += ["cat " * n for n in (74, 75, 76, 77, 300)]
TEXTS += ["a! " * 60, "🙂" * 40, "猫" * 100, "word " * 74 + "🙂", "! " * 75]
WORDS = (
    "a an the of with in on under photo painting portrait castle dragon cat dog astronaut robot neon city ocean forest "
    "mountain sunset cinematic lighting 8k highly detailed trending artstation by Van Gogh Monet 35mm f/1.8 bokeh red "
    "blue green golden hour cyberpunk steampunk baroque minimalist isometric low-poly watercolor, oil canvas. studio! "
    "macro wide-angle it's isn't 1990s 4th DSLR (detailed) [sketch] ultra-realistic café 東京 🙂 ☕ © naïve -- ... ?!"
).split(" ")


def main(out):
    rng = random.Random(0)
    while len(TEXTS) < 200:
        TEXTS.append(" ".join(rng.choice(WORDS) for _ in range(rng.randint(3, 40))))
    merges = read_merges()
    cases = [{"text": text} for text in TEXTS]
    for key, pad_token in (("ids", "<|endoftext|>"), ("ids_2", "!")):
        with tempfile.TemporaryDirectory() as folder:
            write_tokenizer(folder, merges, pad_token)
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        padding = tokenizer.convert_tokens_to_ids(pad_token)
        for case in cases:
            ids = tokenizer(case["text"], padding="max_length", max_length=77, truncation=True).input_ids
            end = 1 + ids.index(49407, 1)
            if "<|endoftext|>" in case["text"].lower():
                end = 77
            assert len(ids) == 77 and all(i == padding for i in ids[end:]), case["text"]
            case[key] = ids[:end]
    write_json(f"{out}/tokens.json", cases)


if __name__ == "__main__":
    main(sys.argv[1])
