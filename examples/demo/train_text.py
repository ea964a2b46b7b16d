# SPDX-License-Identifier: MIT
"""Second and third stage: the text part learns to talk about pictures.

In the second it reads soft tokens as they should be, somewhat spoilt, and needs no picture; this
stage can run beside the first. In the third it reads those that the vision part gives.
"""
import numpy as np
import torch
import torch.nn.functional as F

import conversations
import model as m
import questions
import scenes
from tokenizer import Tokenizer
from training import Stage, smooth

ROWS = 10


def made_up_soft_tokens(seen, codes, generator):
    """Ideal soft tokens of scenes, some leaning to another kind, colour or size, and noisy."""
    targets = torch.from_numpy(np.stack([scenes.scene_targets(s) for s in seen]))
    other = torch.stack([torch.randint(0, n, targets.shape[:2], generator=generator)
                         for n in (m.CODE_ROWS[0], m.CODE_ROWS[1], m.CODE_ROWS[2])], -1)
    other[..., 0] = torch.where(targets[..., 0] > 0, other[..., 0], targets[..., 0])
    lean = torch.rand(*targets.shape[:2], 1, generator=generator)
    lean = torch.where(lean < .3, lean, torch.zeros(()))
    soft = (m.ideal_soft_tokens(codes, targets) * (1 - lean)
            + m.ideal_soft_tokens(codes, other) * lean)
    return (soft + torch.randn(soft.shape, generator=generator) * .1).flatten(0, 1)


def seen_soft_tokens(vision, seen, rng):
    """What the vision part makes of scenes that are drawn now."""
    pictures = np.stack([scenes.look(scenes.draw_scene(rng, s), rng) for s in seen])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return vision(torch.from_numpy(pictures)).flatten(0, 1).float()


class Steps(torch.utils.data.Dataset):
    """What each step is trained on: a batch and its soft tokens, the same whenever it is drawn."""

    def __init__(self, tokenizer, stream, steps, soft_of):
        self.tokenizer, self.stream, self.steps, self.soft_of = tokenizer, stream, steps, soft_of

    def __len__(self):
        return self.steps

    def __getitem__(self, step):
        batch, rng = conversations.training_batch(self.tokenizer, [self.stream, step], ROWS)
        return batch, self.soft_of(batch, rng)


def answer_logits(text, batch, soft):
    """Logits [n, vocabulary] where an answer's next id is known, and those ids [n]."""
    hidden = text(batch.ids, soft, batch.soft_at, batch.positions, batch.mask)
    known = batch.labels != -100
    return F.linear(hidden[known], text.embed.weight).float(), batch.labels[known]


def answer_loss(logits, labels, weighty):
    """Cross entropy; the few ids that an answer hangs on count more."""
    weights = 1 + 4 * torch.isin(labels, weighty).float()
    return (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()


@torch.no_grad()
def measure(text, batches):
    """Percentages of answers that are right to the letter, by group."""
    right, all_ = {}, {}
    for batch, soft in batches:
        logits, labels = answer_logits(text, batch, soft)
        hit = torch.ones_like(batch.labels, dtype=torch.bool)
        hit[batch.labels != -100] = logits.argmax(-1) == labels
        for row, start, end, kind in batch.kinds:
            group = questions.GROUPS[kind]
            all_[group] = all_.get(group, 0) + 1
            right[group] = right.get(group, 0) + bool(hit[row, start:end].all())
    return {g: round(100 * right[g] / all_[g], 1) for g in sorted(all_)}


def scored_batches(tokenizer, n_rows, soft_of):
    batches = [conversations.scored_batch(tokenizer, [9, i], 30) for i in range(n_rows // 30)]
    return [(batch, soft_of(batch, rng)) for batch, rng in batches]


def new_text(tokenizer):
    text = m.Text(len(tokenizer.tokens))
    with torch.no_grad():
        for group in tokenizer.same_words():
            text.embed.weight[group] = text.embed.weight[group[0]] \
                + .2 * text.embed.weight[group]
    text.start_words(tokenizer.meanings())
    return text


def train(folder, name, steps, rate, start=None, vision=None, compiled=True):
    """Stage `name`; with `vision` from what that sees of drawn scenes, else from made-up tokens."""
    torch.manual_seed(2)
    tokenizer, codes = Tokenizer(), m.codebook()
    text = new_text(tokenizer)
    if start:
        text.load_state_dict(start)
    # the third stage starts where the rate of the second ends
    stage = Stage(name, folder, text, rate, 2.0, steps, *((.4, .01) if vision else (.25, .5)))
    if compiled:
        for layer in text.layers:
            layer.compile(dynamic=False)

    def soft_of(batch, rng):
        if not batch.scenes:
            return torch.zeros(0, m.CONFIG["hidden"])
        if vision:
            return seen_soft_tokens(vision, batch.scenes, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2 ** 62)))
        return made_up_soft_tokens(batch.scenes, codes, generator)

    weighty = torch.tensor([tokenizer.ids[space + word] for space in ("", "\u2581")
                            for word in ("Yes", "No", "yes", "no")])
    data = Steps(tokenizer, 3 if vision else 2, steps, soft_of)
    mean, unseen = float("nan"), scored_batches(tokenizer, 150, soft_of)
    # drawn and seen by a process of its own, somewhat ahead
    for batch, soft in torch.utils.data.DataLoader(data, batch_size=None, num_workers=1,
                                                   sampler=range(stage.step, steps)):
        with torch.autocast("cpu", torch.bfloat16):
            logits, labels = answer_logits(text, batch, soft)
        loss = answer_loss(logits, labels, weighty)
        loss.backward()
        stage.update()
        mean = smooth(mean, loss.item())
        if stage.step % 250 == 0 or stage.step == steps:
            stage.save()
        if stage.step % 500 == 0 or stage.step == steps:
            with stage.averaged(), torch.compiler.set_stance("force_eager"), \
                    torch.autocast("cpu", torch.bfloat16):
                stage.log(loss=round(mean, 4), **measure(text, unseen))
    return stage
