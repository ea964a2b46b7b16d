# SPDX-License-Identifier: MIT
"""First stage: the vision part learns to say what stands in every place of a picture."""
import numpy as np
import torch
import torch.nn.functional as F

import model as m
import scenes
from training import Stage, smooth

BATCH = 32


def batch_of(seed, size):
    """Pictures [size, 96, 96, 3] and targets [size, 9, 3] drawn from a seed."""
    rng = np.random.default_rng(seed)
    pictures, targets = [], []
    for _ in range(size):
        scene = scenes.make_scene(rng, int(rng.integers(0, 6)), int(rng.integers(0, 5)))
        pictures.append(scenes.look(scenes.draw_scene(rng, scene), rng))
        targets.append(scenes.scene_targets(scene))
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(targets))


def scores_of(soft, codes):
    """How much of each vector of the codebook is in the soft tokens: kinds, colours, sizes."""
    return (soft @ codes.T / m.CODE_LENGTH ** 2).split(m.CODE_ROWS, -1)[:3]


def soft_loss(soft, targets, codes):
    """Soft tokens should hold the right vectors, more of them than of others, and nothing else."""
    kinds, colours, sizes = scores_of(soft, codes)
    there = targets[..., 0] > 0
    sharp = 12.
    loss = F.cross_entropy(kinds.flatten(0, -2) * sharp, targets[..., 0].flatten())
    loss = loss + .5 * F.cross_entropy(colours[there] * sharp, targets[there][:, 1])
    loss = loss + .3 * F.cross_entropy(sizes[there] * sharp, targets[there][:, 2])
    return loss + .5 * F.mse_loss(soft, m.ideal_soft_tokens(codes, targets))


@torch.no_grad()
def measure(vision, pictures, targets, codes):
    """Percentages read off the soft tokens."""
    soft = torch.cat([vision(p).float() for p in pictures.split(64)])
    kind, colour, size = (s.argmax(-1) for s in scores_of(soft, codes))
    there, shape = targets[..., 0] > 0, targets[..., 0] <= len(scenes.SHAPES)

    def percent(right, where):
        return round(right[where].float().mean().item() * 100, 2)

    return dict(nothing=percent(kind == 0, ~there), shape=percent(kind == targets[..., 0],
                                                                  there & shape),
                character=percent(kind == targets[..., 0], there & ~shape),
                colour=percent(colour == targets[..., 1], there),
                size=percent(size == targets[..., 2], there))


def train(folder, steps, rate=2e-3, compiled=True):
    torch.manual_seed(1)
    vision, codes = m.Vision(), m.codebook()
    stage = Stage("vision", folder, vision, rate, 1.5, steps)
    if compiled:
        vision.compile(dynamic=False)
    unseen = batch_of([1, 0], 512)
    mean = float("nan")
    while stage.step < steps:
        pictures, targets = batch_of([1, 1 + stage.step], BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            soft = vision(pictures).float()
        loss = soft_loss(soft, targets, codes)
        loss.backward()
        stage.update()
        mean = smooth(mean, loss.item())
        if stage.step % 250 == 0 or stage.step == steps:
            stage.save()
        if stage.step % 500 == 0 or stage.step == steps:
            with stage.averaged(), torch.compiler.set_stance("force_eager"), \
                    torch.autocast("cpu", torch.bfloat16):
                stage.log(loss=round(mean, 4), **measure(vision, *unseen, codes))
    return stage
