# SPDX-License-Identifier: MIT
"""What the stages of the training share: the optimiser, averaged weights, checkpoints, the log."""
import csv
import math
import os
import time

import torch


class Optimiser:
    """Muon for the matrices inside, AdamW for the rest."""

    def __init__(self, model, rate, muon_factor):
        matrices, tables, vectors = [], [], []
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2:
                vectors.append(parameter)
            elif any(word in name for word in ("embed", "positions")):
                tables.append(parameter)
            else:
                matrices.append(parameter)
        self.parameters = matrices + tables + vectors
        self.parts = [
            torch.optim.AdamW([dict(params=tables, weight_decay=.02),
                               dict(params=vectors, weight_decay=0.)],
                              lr=rate, betas=(.9, .98), fused=True),
            torch.optim.Muon(matrices, lr=rate * muon_factor, weight_decay=.02, momentum=.95,
                             adjust_lr_fn="match_rms_adamw")]
        self.rates = [rate, rate * muon_factor]

    def step(self, factor):
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, rate in zip(self.parts, self.rates):
            for group in part.param_groups:
                group["lr"] = rate * factor
            part.step()
            part.zero_grad(set_to_none=True)


def schedule(step, steps, fall, last, warm=100):
    """A short rise, a plateau, and over the part `fall` of the steps a fall to `last`."""
    left = (steps - step) / (steps * fall)
    return min(1., (step + 1) / warm, last + (1 - last) * min(1., left))


class Stage:
    """A model in training: its step, its optimiser and the running average of its weights."""

    def __init__(self, name, folder, model, rate, muon_factor, steps, fall=.4, last=.01):
        self.name, self.model, self.steps = name, model, steps
        self.fall, self.last = fall, last
        self.path = os.path.join(folder, f"{name}.pt")
        self.log_path = os.path.join(folder, "curve.csv")
        self.optimiser = Optimiser(model, rate, muon_factor)
        self.mean = {k: v.clone() for k, v in model.state_dict().items()}
        self.step, self.seconds, self._since = 0, 0., time.monotonic()
        if os.path.exists(self.path):
            self._load()

    def _load(self):
        saved = torch.load(self.path)
        self.model.load_state_dict(saved["model"])
        for part, state in zip(self.optimiser.parts, saved["optimiser"]):
            part.load_state_dict(state)
        self.mean, self.step, self.seconds = saved["mean"], saved["step"], saved["seconds"]

    def save(self):
        """Whole or not at all."""
        torch.save(dict(model=self.model.state_dict(), mean=self.mean, step=self.step,
                        seconds=self.total_seconds(),
                        optimiser=[p.state_dict() for p in self.optimiser.parts]),
                   self.path + ".new")
        os.replace(self.path + ".new", self.path)

    def total_seconds(self):
        return self.seconds + time.monotonic() - self._since

    def update(self):
        """After the gradients are there: one step of the weights and of their average."""
        self.optimiser.step(schedule(self.step, self.steps, self.fall, self.last))
        self.step += 1
        keep = min(.999, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.mean[name].lerp_(value, 1 - keep)

    def log(self, **values):
        """A line of the curve, also printed."""
        row = [self.name, self.step, round(self.total_seconds() / 60, 1)]
        row += [f"{k}={v}" for k, v in values.items()]
        print(*row, flush=True)
        with open(self.log_path, "a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(row)

    def averaged(self):
        """Context in which the model has its averaged weights."""
        return _Averaged(self)


class _Averaged:
    def __init__(self, stage):
        self.stage = stage

    def __enter__(self):
        self.kept = {k: v.clone() for k, v in self.stage.model.state_dict().items()}
        self.stage.model.load_state_dict(self.stage.mean)
        return self.stage.model

    def __exit__(self, *_):
        self.stage.model.load_state_dict(self.kept)


def smooth(mean, value):
    return value if math.isnan(mean) else mean + .02 * (value - mean)
