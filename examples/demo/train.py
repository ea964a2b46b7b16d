# SPDX-License-Identifier: MIT
"""Trains the demo model from nothing but seeds, on two CPU cores in under five hours.

    python train.py RUN

RUN is a folder for checkpoints and the curve (curve.csv). The vision part and the text part are
trained beside each other, each on one core, then the text part goes on with what the vision part
sees. Stopped at any time, the same command goes on from the last checkpoint. All is scheduled by
steps, and each step draws its scenes from its own seed, so a slow machine or an interrupted run
gives the same model but for rounding.
"""
import argparse
import os
import subprocess
import sys

import torch

import model as m
import train_text
import train_vision

VISION_STEPS, TEXT_STEPS, JOINT_STEPS = 2400, 2000, 5500


def run_stage(folder, name):
    if name == "vision":
        train_vision.train(folder, VISION_STEPS)
    elif name == "text":
        train_text.train(folder, "text", TEXT_STEPS, 2e-3)
    else:
        vision = m.Vision()
        vision.load_state_dict(torch.load(os.path.join(folder, "vision.pt"))["mean"])
        text = torch.load(os.path.join(folder, "text.pt"))["mean"]
        train_text.train(folder, "joint", JOINT_STEPS, 1e-3, text, vision)


def start(folder, *names):
    """Stages beside each other, as processes of their own."""
    running = [subprocess.Popen([sys.executable, __file__, folder, "--stage", name])
               for name in names]
    if any([process.wait() for process in running]):
        raise SystemExit("a stage failed; the same command goes on from its last checkpoint")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="folder for checkpoints and the curve")
    parser.add_argument("--stage", choices=["vision", "text", "joint"], help="only this one")
    options = parser.parse_args()
    os.makedirs(options.run, exist_ok=True)
    if options.stage:
        torch.set_num_threads(1)  # each stage is a process of its own
        run_stage(options.run, options.stage)
        return
    start(options.run, "vision", "text")
    start(options.run, "joint")


if __name__ == "__main__":
    main()
