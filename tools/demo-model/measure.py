"""What a picture shows, against what its scene asked for."""
import numpy as np

from scenes import COLORS, SKIES, Scene, background, coverage

PALETTE = np.array([*COLORS.values()], np.float32) / 255
NAMES = [*COLORS]


def eroded(mask, pixels):
    for _ in range(pixels):
        inner = mask.copy()
        inner[1:] &= mask[:-1]
        inner[:-1] &= mask[1:]
        inner[:, 1:] &= mask[:, :-1]
        inner[:, :-1] &= mask[:, 1:]
        mask = inner
    return mask


def judge(image, scene):
    """For a picture (H x W x 3, from 0 to 1): was each of these right? For two objects, both have to be.

    color: the median color of the pixels that the object was to cover is nearest to its color, of the ten.
    background: the mean of the pixels that no object was to cover is nearest to this background, of all backgrounds of
    the same pattern, day and night.
    shape: the pixels nearer to the object's color than to the background's (and the other object's) overlap with the
    drawn mask by at least 0.6 (intersection over union).
    position: the center of those pixels is within 0.08 of the sides from where it was to be.
    """
    height, width = image.shape[:2]
    ground = background(scene, width, height)
    covers = [coverage(thing, width, height) for thing in scene.things]
    free = sum(covers) == 0
    free = eroded(free, 3)

    grounds = {
        name: background(Scene([], "", name, "plain" if name in SKIES else scene.pattern), width, height)[free].mean(0)
        for name in [*COLORS, *SKIES]
    }
    mean = image[free].mean(0)
    nearest = min(grounds, key=lambda name: float(((grounds[name] - mean) ** 2).sum()))
    # The pattern is there if the picture lies nearer to it than to the plain mean.
    contrast = ground - ground[free].mean(0)
    pattern = True
    if np.abs(contrast[free]).max() > 0.02:
        share = float((contrast[free] * (image[free] - mean)).sum() / (contrast[free] ** 2).sum())
        pattern = share > 0.5
    else:
        pattern = float(image[free].std(0).max()) < 0.06

    colors = [PALETTE[NAMES.index(thing.color)] for thing in scene.things]
    distances = np.stack([((image - ground) ** 2).sum(-1)] + [((image - color) ** 2).sum(-1) for color in colors])
    label = distances.argmin(0)
    right = dict(color=True, shape=True, position=True)
    overlaps = []
    y, x = np.mgrid[0:height, 0:width]
    for i, (thing, cover) in enumerate(zip(scene.things, covers)):
        inner = eroded(cover > 0.5, 2)
        inner = inner if inner.any() else cover > 0.5
        seen = np.median(image[inner], 0)
        right["color"] &= NAMES[int(((PALETTE - seen) ** 2).sum(1).argmin())] == thing.color
        mask = label == i + 1
        overlap = float((mask & (cover > 0.5)).sum() / max(1, (mask | (cover > 0.5)).sum()))
        overlaps.append(overlap)
        right["shape"] &= overlap >= 0.6
        if mask.any():
            wanted = cover > 0.5
            dx = abs(x[mask].mean() - x[wanted].mean()) / width
            dy = abs(y[mask].mean() - y[wanted].mean()) / height
            right["position"] &= bool(max(dx, dy) < 0.08)
        else:
            right["position"] = False
    return dict(right, background=nearest == scene.background, pattern=pattern, overlap=float(np.mean(overlaps)))


def summary(verdicts):
    return {name: float(np.mean([v[name] for v in verdicts])) for name in verdicts[0]}
