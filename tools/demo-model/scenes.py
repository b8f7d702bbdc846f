"""The pictures: one or two flat shapes on a background, drawn in numpy from signed distances.

A scene is what its caption says and nothing else; what a caption leaves unsaid has a default (in the middle, of medium
size, plain, black on white), so that there is one right picture for each caption.
"""
from dataclasses import dataclass, field

import numpy as np

COLORS = {
    "red": (220, 30, 35), "green": (30, 160, 60), "blue": (35, 75, 215), "yellow": (248, 215, 40),
    "orange": (245, 130, 25), "purple": (125, 45, 165), "pink": (250, 140, 185), "cyan": (50, 205, 220),
    "white": (250, 250, 250), "black": (20, 20, 22),
}
SKIES = {"day": ((95, 170, 245), (205, 232, 255)), "night": ((8, 10, 36), (38, 44, 96))}
SHAPES = ["circle", "square", "triangle", "star", "heart", "ring", "cross", "moon", "diamond"]
PATTERNS = ["plain", "gradient", "striped", "checkered"]
# Offsets of the center from the middle, in widths and heights.
POSITIONS = {
    "center": (0, 0), "left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1),
    "top left": (-1, -1), "top right": (1, -1), "bottom left": (-1, 1), "bottom right": (1, 1),
}
RELATIONS = {"above": (0, -1), "below": (0, 1), "left of": (-1, 0), "right of": (1, 0)}
OFFSET, PAIR_OFFSET = 0.23, 0.24
# Half the shape's extent, in shorter sides.
RADII = {"small": 0.12, "medium": 0.21, "large": 0.30}
PAIR_RADII = {"small": 0.09, "medium": 0.15, "large": 0.20}
CELL = 32


@dataclass
class Thing:
    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float


@dataclass
class Scene:
    things: list = field(default_factory=list)
    place: str = "center"
    background: str = "white"
    pattern: str = "plain"

    @property
    def pair(self):
        return len(self.things) == 2


def default_color(background):
    """What an object is drawn in when nobody says: what shows on its background."""
    return "white" if background in ("black", "night") else "black"


def random_scene(rng, pairs=0.3):
    background = rng.choice([*COLORS] * 4 + ["white"] * 6 + ["day"] * 3 + ["night"] * 3)
    sky = background in SKIES
    clash = {"day": ("cyan", "white"), "night": ("black",)}.get(background, (background,))
    colors = [color for color in COLORS if color not in clash]
    pattern = "plain" if sky else rng.choice(["plain"] * 3 + ["gradient", "striped", "checkered"])
    sizes = ["small", "medium", "medium", "large"]

    def color(taken=()):
        if rng.random() < 0.06 and default_color(background) not in taken:
            return default_color(background)
        return rng.choice([color for color in colors if color not in taken])

    if rng.random() < pairs:
        relation = rng.choice([*RELATIONS])
        dx, dy = (PAIR_OFFSET * d for d in RELATIONS[relation])
        first, second = rng.choice(sizes), rng.choice(sizes)
        a = Thing(rng.choice(SHAPES), color(), first, dx, dy, PAIR_RADII[first])
        b = Thing(rng.choice(SHAPES), color((a.color,)), second, -dx, -dy, PAIR_RADII[second])
        return Scene([a, b], relation, background, pattern)
    place = rng.choice(["center"] * 3 + [*POSITIONS][1:])
    dx, dy = (OFFSET * d for d in POSITIONS[place])
    size = rng.choice(sizes)
    return Scene([Thing(rng.choice(SHAPES), color(), size, dx, dy, RADII[size])], place, background, pattern)


def polygon(x, y, points):
    """Signed distance to a polygon, negative inside."""
    nearest = np.full(x.shape, 1e9, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, points[-1:] + points[:-1]):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        crosses = (y >= ay) != (y >= by)
        inside ^= crosses & ((ex * wy > ey * wx) == (ey > 0))
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def distance(shape, x, y, r):
    """Signed distance from the shape of half-extent `r` about the origin; y points down."""
    if shape == "circle":
        return np.hypot(x, y) - r
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.76 * r) - 0.25 * r
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - 0.88 * r
    if shape == "diamond":
        return (np.abs(x) * 1.35 + np.abs(y) - 1.1 * r) / 1.68
    if shape == "triangle":
        return polygon(x, y, [(0, -r), (0.98 * r, 0.75 * r), (-0.98 * r, 0.75 * r)])
    if shape == "cross":
        x, y = np.abs(x), np.abs(y)
        bar = np.maximum(x - r, y - 0.34 * r)
        return np.minimum(bar, np.maximum(y - r, x - 0.34 * r))
    if shape == "moon":
        return np.maximum(np.hypot(x, y) - r, 0.86 * r - np.hypot(x - 0.52 * r, y + 0.14 * r))
    if shape == "star":
        angles = [(np.pi * k / 5, r * (1.12 if k % 2 == 0 else 0.5)) for k in range(10)]
        return polygon(x, y, [(q * np.sin(a), -q * np.cos(a)) for a, q in angles])
    s = 1.65 * r
    px, py = np.abs(x) / s, -y / s + 0.55
    lobe = np.hypot(px - 0.25, py - 0.75) - np.sqrt(2) / 4
    m = 0.5 * np.maximum(px + py, 0)
    tip = np.sqrt(np.minimum(px**2 + (py - 1) ** 2, (px - m) ** 2 + (py - m) ** 2)) * np.sign(px - py)
    return np.where(px + py > 1, lobe, tip) * s


def second_shade(color):
    return color * 0.72 if color.min() > 0.9 else color * 0.62 + 0.38


def background(scene, width, height):
    """The background alone: height x width x 3, from 0 to 1."""
    down = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None, None]
    if scene.background in SKIES:
        top, bottom = (np.array(color, np.float32) / 255 for color in SKIES[scene.background])
        return np.broadcast_to(top * (1 - down) + bottom * down, (height, width, 3)).astype(np.float32)
    color = np.array(COLORS[scene.background], np.float32) / 255
    other = second_shade(color)
    if scene.pattern == "gradient":
        share = np.broadcast_to(down, (height, width, 1))
    elif scene.pattern == "striped":
        share = np.broadcast_to((np.arange(width) // CELL % 2)[None, :, None], (height, width, 1))
    elif scene.pattern == "checkered":
        share = ((np.arange(width)[None, :] // CELL + np.arange(height)[:, None] // CELL) % 2)[..., None]
    else:
        share = np.zeros((height, width, 1))
    share = share.astype(np.float32)
    return color * (1 - share) + other * share


def coverage(thing, width, height):
    """How much of each pixel the thing covers: height x width, from 0 to 1."""
    side = min(width, height)
    cx, cy, r = width * (0.5 + thing.x), height * (0.5 + thing.y), side * thing.radius
    reach = 1.2 * r + 2
    left, right = max(0, int(cx - reach)), min(width, int(cx + reach) + 1)
    top, bottom = max(0, int(cy - reach)), min(height, int(cy + reach) + 1)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) + np.float32(0.5)
    covered = np.zeros((height, width), np.float32)
    covered[top:bottom, left:right] = np.clip(0.5 - distance(thing.shape, x - cx, y - cy, r), 0, 1)
    return covered


def render(scene, width=256, height=256):
    """The picture (height x width x 3, from 0 to 1) and what of it is object (height x width)."""
    image = background(scene, width, height)
    objects = np.zeros((height, width), np.float32)
    for thing in scene.things:
        covered = coverage(thing, width, height)
        color = np.array(COLORS[thing.color], np.float32) / 255
        image = image * (1 - covered[..., None]) + covered[..., None] * color
        objects = np.maximum(objects, covered)
    return image, objects


def jittered(scene, rng):
    """The same scene as it may be drawn: a little aside, a little larger or smaller."""
    moved = [
        Thing(t.shape, t.color, t.size, t.x + rng.uniform(-1, 1) * 0.015, t.y + rng.uniform(-1, 1) * 0.015,
              t.radius * rng.uniform(0.96, 1.04))
        for t in scene.things
    ]
    return Scene(moved, scene.place, scene.background, scene.pattern)
