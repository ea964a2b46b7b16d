# SPDX-License-Identifier: MIT
"""Draws the sample pictures.

    python samples.py FOLDER
"""
import os
import sys

import numpy as np

import scenes

SIDE = 384
# name: background, and what stands where: (colour, kind, size, position)
SAMPLES = {
    "shapes": ((245, 244, 240), [
        ("red", "circle", "large", "top left"), ("blue", "star", "medium", "top right"),
        ("yellow", "square", "small", "middle"), ("green", "heart", "large", "bottom left"),
        ("red", "triangle", "medium", "bottom right")]),
    "letters": ((222, 228, 238), [
        ("purple", "K", "large", "middle left"), ("orange", "7", "medium", "top right"),
        ("black", "ring", "medium", "bottom middle")]),
    "night": ((28, 30, 44), [
        ("white", "star", "medium", "top left"), ("white", "star", "small", "top middle"),
        ("yellow", "circle", "large", "top right"), ("white", "star", "small", "middle left"),
        ("blue", "diamond", "medium", "bottom middle")]),
    "stars": ((250, 250, 250), [
        ("red", "star", "large", "top middle"), ("green", "star", "small", "middle left"),
        ("blue", "cross", "medium", "middle right"), ("orange", "star", "medium", "bottom left"),
        ("purple", "star", "medium", "bottom right")]),
}


def sample_scene(background, wanted):
    """A scene with every thing in the middle of its place."""
    things = []
    for colour, kind, size, position in wanted:
        size, place = scenes.SIZES.index(size), scenes.POSITIONS.index(position)
        things.append(scenes.Thing(
            scenes.KINDS.index(kind), scenes.COLOURS.index(colour), size, place,
            (place % scenes.GRID + .5) * scenes.PLACE, (place // scenes.GRID + .5) * scenes.PLACE,
            [7.5, 10.5, 14][size]))
    return scenes.Scene(things, background)


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(1)
    for name, (background, wanted) in SAMPLES.items():
        # four times as large first, for smooth edges
        drawn = scenes.draw_scene(rng, sample_scene(background, wanted), 4 * SIDE, 4 * SIDE, True)
        path = os.path.join(folder, f"{name}.png")
        drawn.resize((SIDE, SIDE), scenes.Image.BOX).save(path, optimize=True)
        print(path, os.path.getsize(path), "bytes")


if __name__ == "__main__":
    main()
