# SPDX-License-Identifier: MIT
"""Conversations as ids: what the text part is trained on.

A row is a tree: a beginning with pictures, shared by several conversations about them. Each goes on
as if it stood alone, which the mask and the positions see to. So the pictures are paid for once.
"""
import dataclasses
import random

import numpy as np
import torch

import model as m
import questions
import scenes

LENGTH = 224  # tokens of a row


@dataclasses.dataclass
class Batch:
    ids: torch.Tensor        # [rows, LENGTH]
    labels: torch.Tensor     # the id that comes next inside answers, else -100
    positions: torch.Tensor
    mask: torch.Tensor       # [rows, LENGTH, LENGTH]
    soft_at: torch.Tensor    # [pictures * 9] where the soft tokens go, of all ids in a row
    scenes: list             # one for each picture
    kinds: list              # (row, from, to, kind) of each answer's labels


class Row:
    """Grows by text; `branch` is 0 in the shared beginning."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.ids, self.labels, self.positions = [], [], []
        self.branches, self.pictures, self.kinds = [], [], []
        self.branch = self.n_pictures = self.next_position = 0

    def _add(self, ids, picture=0):
        self.ids += ids
        self.labels += [-100] * len(ids)
        self.positions += range(self.next_position, self.next_position + len(ids))
        self.branches += [self.branch] * len(ids)
        self.pictures += [picture] * len(ids)
        self.next_position += len(ids)

    def text(self, text):
        """Text whose special tokens count; <image_soft_token> stands for a whole picture."""
        soft = self.tokenizer.ids["<image_soft_token>"]
        for i in self.tokenizer.encode(text):
            if i == soft:
                self.n_pictures += 1
                self._add([soft] * m.SOFT_TOKENS, self.n_pictures)
            else:
                self._add([i])

    def turn(self, turn):
        """A question that the user is about to ask, and its answer."""
        kind, question, answer = turn
        self.text(f"{question}<end_of_turn>\n<start_of_turn>model\n")
        start = len(self.ids) - 1
        self.text(f"{answer}<end_of_turn>")
        self.labels[start:-1] = self.ids[start + 1:]
        self.kinds.append((start, len(self.ids) - 1, kind))

    def user(self, text=""):
        """The model's turn is over."""
        self.text(f"\n<start_of_turn>user\n{text}")

    def state(self):
        return len(self.ids), len(self.kinds), self.next_position

    def cut(self, state):
        length, n_kinds, self.next_position = state
        for items in (self.ids, self.labels, self.positions, self.branches, self.pictures):
            del items[length:]
        del self.kinds[n_kinds:]


PICTURE = "\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
BEGIN = "<bos><start_of_turn>user\n"


def random_scene(rng, pair=False):
    draw = rng.random()
    if pair:
        return scenes.make_scene(rng, int(rng.integers(1, 6)), int(rng.random() < .2))
    if draw < .02:
        return scenes.make_scene(rng, 0, 0)
    if draw < .5:
        return scenes.make_scene(rng, int(rng.integers(1, 7)), 0)
    if draw < .85:
        return scenes.make_scene(rng, int(rng.integers(1, 7)), int(rng.integers(1, 3)))
    return scenes.make_scene(rng, int(rng.integers(0, 3)), int(rng.integers(1, 5)))


def make_row(tokenizer, rng, rnd):
    """A row of the training and the scenes of its pictures."""
    row, asker, shape = Row(tokenizer), questions.Asker(rnd), rnd.random()
    if shape < .06:
        row.text(BEGIN)
        _add_branches(row, rnd, lambda: rnd.choice((asker.small_talk, asker.without_picture))())
        return row, []
    if shape < .62:
        scene = random_scene(rng)
        before = "Here is a picture:" if rnd.random() < .08 else ""
        row.text(BEGIN + before + PICTURE)
        _add_branches(row, rnd, lambda: asker.small_talk() if rnd.random() < .02
                      else asker.ask(scene.things), asker)
        return row, [scene]
    pair = [random_scene(rng, True) for _ in range(2)]
    first, second = (scene.things for scene in pair)
    in_turn = shape >= .86  # the second picture comes in a later turn, and may be all that is meant
    if shape < .68:
        row.text(BEGIN + "First picture:" + PICTURE + "Second picture:" + PICTURE)
    elif shape < .86:
        row.text(BEGIN + PICTURE + PICTURE)
    else:
        row.text(BEGIN + PICTURE)
        row.turn(asker.ask(first))
        row.user(PICTURE)
    _add_branches(row, rnd, lambda: asker.ask(second) if in_turn and rnd.random() < .2
                  else asker.ask_two(first, second), asker)
    return row, pair


def _add_branches(row, rnd, ask, asker=None):
    """Conversations until the row is full."""
    begin, failures = row.next_position, 0
    while failures < 3:
        state = row.state()
        row.branch += 1
        row.next_position = begin
        if rnd.random() < .25:  # as if after other turns
            row.next_position += rnd.randrange(10, 350)
            row.text("<start_of_turn>user\n")
        if asker:
            asker.it = None
        row.turn(ask())
        while rnd.random() < .35:
            row.user()
            row.turn(ask())
        if len(row.ids) > LENGTH:
            row.cut(state)
            failures += 1


def collate(rows_and_scenes):
    """Rows as one batch."""
    n = len(rows_and_scenes)
    ids, positions = np.zeros((n, LENGTH), np.int64), np.zeros((n, LENGTH), np.int64)
    labels, branches = np.full((n, LENGTH), -100), np.full((n, LENGTH), -1)
    pictures, kinds, seen = np.zeros((n, LENGTH), np.int64), [], []
    for i, (row, row_scenes) in enumerate(rows_and_scenes):
        for array, items in ((ids, row.ids), (labels, row.labels), (positions, row.positions),
                             (branches, row.branches), (pictures, row.pictures)):
            array[i, :len(items)] = items
        kinds += [(i, *kind) for kind in row.kinds]
        seen += row_scenes
    at = np.arange(LENGTH)
    before = at[:, None] >= at
    related = (branches[:, None] == 0) | (branches[:, None] == branches[:, :, None])
    together = (pictures[:, None] == pictures[:, :, None]) & (pictures[:, None] > 0)
    mask = (before & related) | together
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(positions),
                 torch.from_numpy(mask), torch.from_numpy(np.flatnonzero(pictures)), seen, kinds)


def training_batch(tokenizer, seed, n_rows):
    """A batch drawn from a seed (a list of integers), and the generator, to draw its pictures."""
    rng = np.random.default_rng(seed)
    rnd = random.Random(int(rng.integers(2 ** 62)))
    return collate([make_row(tokenizer, rng, rnd) for _ in range(n_rows)]), rng


def scored_batch(tokenizer, seed, n_rows):
    """Unseen scenes and unseen phrasings, one question in a branch."""
    rng = np.random.default_rng(seed)
    rnd = random.Random(int(rng.integers(2 ** 62)))
    rows = []
    for i in range(n_rows):
        row, asker = Row(tokenizer), questions.Asker(rnd, scored=True)
        chosen = [random_scene(rng, i % 3 == 2) for _ in range(1 + (i % 3 == 2))]
        row.text(BEGIN + PICTURE * len(chosen))
        begin, things = row.next_position, [scene.things for scene in chosen]
        for _ in range(20):
            state = row.state()
            row.branch += 1
            row.next_position = begin
            asker.it = None
            row.turn(asker.ask(*things) if len(things) == 1 else asker.ask_two(*things))
            if len(row.ids) > LENGTH:
                row.cut(state)
                break
        rows.append((row, chosen))
    return collate(rows), rng
