# SPDX-License-Identifier: MIT
"""Made-up scenes: coloured shapes, digits and letters on a 3 x 3 layout, drawn by Pillow.

A scene is drawn from a numpy generator, so a seed gives the same scene everywhere. Each of the nine
places holds one thing or none; a thing may stand anywhere in its place, but not across its border.
"""
import dataclasses
import functools
import io
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE = 96  # pixels of the picture that the model sees
GRID = 3
PLACE = SIDE // GRID
COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "black", "white"]
SHAPES = ["circle", "square", "triangle", "star", "cross", "diamond", "heart", "ring"]
DIGITS = list("0123456789")
LETTERS = list("ABCDEFGHJKLMNPQRSTUVWXYZ")  # no I and O: they look like 1 and 0
KINDS = SHAPES + DIGITS + LETTERS
SIZES = ["small", "medium", "large"]
POSITIONS = ["top left", "top middle", "top right", "middle left", "middle", "middle right",
             "bottom left", "bottom middle", "bottom right"]

_RGB = np.array([(215, 35, 40), (35, 160, 60), (40, 75, 215), (245, 220, 40), (140, 45, 170),
                 (245, 130, 20), (15, 15, 18), (250, 250, 250)], np.float64)
_RADII = [(6.6, 8.0), (9.8, 11.2), (13.3, 15.2)]  # of shapes, by size
_CHARACTER_RADII = [(7.8, 8.8), (10.6, 11.8), (13.6, 15.2)]
_FONTS = ["dejavu/DejaVuSans", "dejavu/DejaVuSans-Bold", "dejavu/DejaVuSerif",
          "dejavu/DejaVuSerif-Bold", "dejavu/DejaVuSansMono-Bold", "dejavu/DejaVuSansCondensed",
          "liberation/LiberationSans-Regular", "liberation/LiberationSans-Bold",
          "liberation/LiberationSerif-Bold", "liberation/LiberationMono-Bold"]


@dataclasses.dataclass
class Thing:
    """A shape or a character in a scene; `x`, `y` and `radius` are in pixels of the model."""
    kind: int    # of KINDS
    colour: int  # of COLOURS
    size: int    # of SIZES
    place: int   # of POSITIONS
    x: float
    y: float
    radius: float

    @property
    def is_shape(self):
        return self.kind < len(SHAPES)

    @property
    def is_digit(self):
        return len(SHAPES) <= self.kind < len(SHAPES) + len(DIGITS)

    @property
    def is_letter(self):
        return self.kind >= len(SHAPES) + len(DIGITS)


@dataclasses.dataclass
class Scene:
    things: list      # of Thing, in reading order
    background: tuple  # red, green, blue


def make_scene(rng, n_shapes, n_characters):
    """A scene with this many things, of few colours and shapes so that some occur twice."""
    background = _background(rng)
    seen = [c for c in range(len(COLOURS)) if np.abs(_RGB[c] - background).sum() > 170]
    colours = rng.permutation(seen)[:rng.integers(2, 7)]
    shapes = rng.permutation(len(SHAPES))[:rng.integers(2, 8)]
    places = rng.permutation(GRID * GRID)[:n_shapes + n_characters]
    things = []
    for i, place in enumerate(places):
        size = int(rng.integers(len(SIZES)))
        shape = i < n_shapes
        kind = int(rng.choice(shapes)) if shape else int(rng.integers(len(SHAPES), len(KINDS)))
        radius = rng.uniform(*(_RADII if shape else _CHARACTER_RADII)[size])
        slack = PLACE / 2 - radius - .3
        things.append(Thing(kind, int(rng.choice(colours)), size, int(place),
                            (place % GRID + .5) * PLACE + rng.uniform(-slack, slack),
                            (place // GRID + .5) * PLACE + rng.uniform(-slack, slack), radius))
    return Scene(sorted(things, key=lambda t: t.place), tuple(background))


def _background(rng):
    draw = rng.random()
    if draw < .4:
        colour = rng.uniform(238, 256) + rng.uniform(-4, 4, 3)
    elif draw < .7:
        colour = rng.uniform(90, 235) + rng.uniform(-8, 8, 3)
    elif draw < .9:
        colour = rng.uniform(150, 225) + rng.uniform(-30, 30, 3)
    else:
        colour = rng.uniform(0, 70) + rng.uniform(-8, 8, 3)
    return np.clip(colour, 0, 255)


def _outline(shape):
    """Corners of a shape in a circle of radius 1."""
    def spike(k, n, radius=1.):
        angle = 2 * math.pi * k / n - math.pi / 2
        return radius * math.cos(angle), radius * math.sin(angle)

    if shape in ("circle", "ring"):
        return [spike(k, 60) for k in range(60)]
    if shape == "square":
        return [(-.85, -.85), (.85, -.85), (.85, .85), (-.85, .85)]
    if shape == "triangle":
        return [(0, -.95), (1, .8), (-1, .8)]
    if shape == "star":
        return [spike(k, 10, .42 if k % 2 else 1.) for k in range(10)]
    if shape == "cross":
        w = .33
        return [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w),
                (-1, w), (-1, -w), (-w, -w)]
    if shape == "diamond":
        return [(0, -1), (.68, 0), (0, 1), (-.68, 0)]
    turns = [2 * math.pi * k / 60 for k in range(60)]  # heart
    return [(math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t)
                                 - math.cos(4 * t)) / 16) for t in turns]


_OUTLINES = {shape: np.array(_outline(shape)) for shape in SHAPES}


@functools.lru_cache(maxsize=2000)
def _font(name, size):
    return ImageFont.truetype(f"/usr/share/fonts/truetype/{name}.ttf", size)


def draw_scene(rng, scene, width=None, height=None, plain=False):
    """The scene as an RGB picture of any size. plain: no texture, no noise, no JPEG."""
    if width is None:
        width = height = int(rng.integers(150, 480))
        if rng.random() < .25:
            height = int(width * rng.uniform(.8, 1.25))
    picture = _canvas(rng, scene.background, width, height, plain)
    scale = np.array([width, height]) / SIDE
    for thing in scene.things:
        colour = _RGB[thing.colour] + (0 if plain else rng.uniform(-18, 18, 3))
        colour = tuple(int(c) for c in np.clip(colour, 0, 255))
        centre = np.array([thing.x, thing.y]) * scale
        radius = thing.radius * scale
        if thing.is_shape:
            _draw_shape(rng, picture, SHAPES[thing.kind], centre, radius, colour)
        else:
            _draw_character(rng, picture, KINDS[thing.kind], centre, radius, colour)
    if not plain and rng.random() < .1:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=int(rng.integers(60, 95)))
        picture = Image.open(stream)
    return picture


def _canvas(rng, background, width, height, plain):
    texture = rng.random()
    if plain or texture < .5:
        return Image.new("RGB", (width, height), tuple(int(c) for c in background))
    if texture < .8:  # a gradient, else blotches
        corners = np.array(background) + rng.uniform(-18, 18, (2, 2, 1))
    else:
        corners = np.array(background) + rng.uniform(-14, 14, (6, 6, 1))
    small = Image.fromarray(np.clip(corners, 0, 255).astype(np.uint8))
    return small.resize((width, height), Image.BILINEAR)


def _draw_shape(rng, picture, shape, centre, radius, colour):
    angle = rng.uniform(-.15, .15)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    corner = np.floor(centre - radius * 1.2).astype(int)
    mask = Image.new("L", tuple(int(v) for v in np.ceil(radius * 2.4) + 2), 0)
    pen = ImageDraw.Draw(mask)
    points = _OUTLINES[shape] @ turn * radius + centre - corner
    pen.polygon([tuple(p) for p in points], fill=255)
    if shape == "ring":
        inner = (points - (centre - corner)) * rng.uniform(.5, .62) + centre - corner
        pen.polygon([tuple(p) for p in inner], fill=0)
    picture.paste(colour, tuple(int(v) for v in corner), mask)


def _draw_character(rng, picture, character, centre, radius, colour):
    name = _FONTS[rng.integers(len(_FONTS))]
    font = _font(name, max(8, int(round(2.3 * min(radius)))))
    pen = ImageDraw.Draw(picture)
    left, top, right, bottom = pen.textbbox((0, 0), character, font=font)
    pen.text((centre[0] - (left + right) / 2, centre[1] - (top + bottom) / 2), character,
             fill=colour, font=font)


def look(picture, rng=None):
    """What the model sees of a picture: [96, 96, 3] bytes; with `rng` sometimes noisy."""
    seen = np.asarray(picture.resize((SIDE, SIDE), Image.BILINEAR))
    if rng is not None and rng.random() < .3:
        noise = rng.standard_normal((SIDE, SIDE, 1)) * rng.uniform(1, 6)
        seen = np.clip(seen + noise, 0, 255).astype(np.uint8)
    return seen


def scene_targets(scene):
    """[9, 3] kind + 1 (0: nothing), colour and size of what stands in each place."""
    targets = np.zeros((GRID * GRID, 3), np.int64)
    for thing in scene.things:
        targets[thing.place] = thing.kind + 1, thing.colour, thing.size
    return targets
