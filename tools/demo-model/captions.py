"""What people may call a scene."""
import random
import zlib

from scenes import SKIES, default_color, random_scene

SIZES = {"small": ["small", "small", "little", "tiny"], "large": ["large", "big", "big", "huge"], "medium": ["medium"]}
COLORS = {"purple": ["purple", "purple", "violet"], "cyan": ["cyan", "cyan", "turquoise"]}
SHAPES = {
    "circle": ["circle", "circle", "circle", "disc", "disk", "ball", "dot"], "square": ["square", "square", "box"],
    "ring": ["ring", "ring", "ring", "donut"], "cross": ["cross", "cross", "plus"],
    "moon": ["moon", "moon", "crescent", "crescent moon"], "diamond": ["diamond", "diamond", "rhombus"],
}
PLACES = {"center": ["in the center", "in the middle", "centered"]}
RELATIONS = {
    "above": ["above", "above", "over", "on top of"], "below": ["below", "below", "under", "beneath"],
    "left of": ["to the left of", "left of", "next to", "beside", "and"], "right of": ["to the right of", "right of"],
}
TIMES = {
    "day": ["by day", "in the daytime", "during the day", "on a sunny day", "under a day sky", "in the day"],
    "night": ["at night", "at night", "by night", "in the night sky", "under a night sky", "in the night"],
}
GROUNDS = ["background", "background", "background", "background", "backdrop"]
PREFIXES = ["a picture of ", "a drawing of ", "an image of ", "a photo of ", "draw ", "picture: "]


def article(words, rng):
    kind = rng.choice(["a", "a", "a", "a", "the", "one", ""])
    if kind == "a" and words[0] in "aeiou":
        kind = "an"
    return f"{kind} {words}".strip()


def object_words(thing, scene, rng):
    sizes = [""] if thing.size == "medium" and rng.random() < 0.85 else SIZES[thing.size]
    shape = rng.choice(SHAPES.get(thing.shape, [thing.shape]))
    color = rng.choice(COLORS.get(thing.color, [thing.color]))
    size = rng.choice(sizes)
    if thing.color == default_color(scene.background) and not scene.pair and rng.random() < 0.5:
        color = ""
    if color and size and rng.random() < 0.08:
        return article(f"{color} {size} {shape}", rng)
    if color and rng.random() < 0.08:
        return article(f"{size} {shape}".strip(), rng) + f" in {color}"
    return article(" ".join(word for word in (size, color, shape) if word), rng)


def place_words(scene, rng):
    place = scene.place
    if place == "center":
        return rng.choice([""] * 6 + PLACES["center"])
    if " " in place:
        first, second = place.split()
        upper = {"top": "upper", "bottom": "lower"}[first]
        return rng.choice([f"in the {place}", f"in the {place} corner", f"at the {place}", f"in the {upper} {second}"])
    return rng.choice([f"on the {place}", f"at the {place}", f"on the {place} side", f"to the {place}"])


def ground_words(scene, rng):
    """The background as a noun phrase without an article."""
    color, ground = rng.choice(COLORS.get(scene.background, [scene.background])), rng.choice(GROUNDS)
    if scene.pattern == "plain":
        return rng.choice([f"{color} {ground}"] * 4 + [f"plain {color} {ground}", f"solid {color} {ground}"])
    if scene.pattern == "gradient":
        return rng.choice([f"{color} gradient {ground}", f"gradient {color} {ground}", f"{color} gradient"])
    word, plural = {
        "striped": ("striped", "stripes"), "checkered": (rng.choice(["checkered", "checked"]), "checks")
    }[scene.pattern]
    forms = [f"{color} {word} {ground}", f"{word} {color} {ground}", f"{color} {ground} with {plural}"]
    return rng.choice(forms + (["{} checkerboard".format(color)] if word != "striped" else [f"{color} stripes"]))


def what_words(scene, rng):
    """The objects and where they are, as (words, words that may stand apart)."""
    if not scene.pair:
        return object_words(scene.things[0], scene, rng), place_words(scene, rng)
    a, b = (object_words(thing, scene, rng) for thing in scene.things)
    return f"{a} {rng.choice(RELATIONS[scene.place])} {b}", ""


def caption(scene, rng):
    what, where = what_words(scene, rng)
    both = f"{what} {where}".strip()
    if scene.background in SKIES:
        time = rng.choice(TIMES[scene.background])
        text = rng.choice([f"{both} {time}", f"{both}, {time}", f"{time}, {both}", f"{both}, {scene.background}"])
    elif scene.background == "white" and scene.pattern == "plain" and rng.random() < 0.5:
        text = both
    else:
        ground = ground_words(scene, rng)
        aside = f", {where}" if where else ""
        text = rng.choice(
            [f"{both} on a {ground}"] * 4
            + [f"{what} on a {ground}{aside}"] * 2
            + [f"{both}, {ground}", f"{both} against a {ground}", f"{ground} with {both}", f"a {ground} with {both}",
               f"{ground}, {both}", f"on a {ground}, {both}"]
            + ([f"{both} on {scene.background}"] if scene.pattern == "plain" else [])
        )
    if rng.random() < 0.1:
        text = rng.choice(PREFIXES) + text
    return text + ("." if rng.random() < 0.05 else "")


def held_out(text):
    """One caption in twenty is kept from the UNet's training, for the evaluation."""
    return zlib.crc32(text.encode()) % 20 == 0


def caption_where(scene, rng, is_held_out):
    while held_out(text := caption(scene, rng)) != is_held_out:
        pass
    return text


if __name__ == "__main__":
    rng = random.Random(0)
    for _ in range(40):
        print(caption(random_scene(rng), rng))
