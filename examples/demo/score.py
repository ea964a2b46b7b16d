# SPDX-License-Identifier: MIT
"""Scores the demo model through `kim` on 1,000 unseen scenes, in unseen phrasings.

    python score.py KIM TEXT_GGUF MMPROJ_GGUF [--device D] [--scenes N] [--wrong FILE]

An answer counts when it is right to the letter. Six in ten scenes are asked three questions each in
one conversation, the others two questions each in pairs.
"""
import argparse
import collections
import os
import random
import subprocess
import tempfile

import numpy as np

import conversations
import questions
import scenes

SEED = 2026
GROUPS_ONE = ["colour", "shape", "position", "count", "character", "not there", "size", "exists",
              "description"]
TARGETS = {"colour": 97, "shape": 97, "position": 90, "count": 90, "character": 88,
           "two pictures": 85, "not there": 90}


def ask_group(asker, ask, group):
    """A question of a group, or None where the scene has none."""
    it = asker.it  # what the last question that is really asked was about
    for _ in range(300):
        asker.it = it
        turn = ask()
        if questions.GROUPS[turn[0]] == group:
            return turn
    asker.it = it
    return None


def make_talks(n_scenes):
    """Conversations: (scenes, turns)."""
    talks, groups = [], collections.Counter()
    n_single = n_scenes * 6 // 10
    for i in range(n_single):
        rng = np.random.default_rng([SEED, i])
        asker = questions.Asker(random.Random(int(rng.integers(2 ** 62))), scored=True)
        scene = conversations.random_scene(rng)
        turns = []
        for group in sorted(GROUPS_ONE, key=lambda g: groups[g]):  # the rarest so far first
            turn = len(turns) < 3 and ask_group(
                asker, lambda: asker.ask(scene.things), group)
            if turn:
                turns.append(turn)
                groups[group] += 1
        talks.append(([scene], turns))
    for i in range((n_scenes - n_single) // 2):
        rng = np.random.default_rng([SEED, n_single + i])
        asker = questions.Asker(random.Random(int(rng.integers(2 ** 62))), scored=True)
        pair = [conversations.random_scene(rng, True) for _ in range(2)]
        first, second = (scene.things for scene in pair)
        turns = [ask_group(asker, lambda: asker.ask_two(first, second), "two pictures")
                 for _ in range(2)]
        talks.append((pair, [turn for turn in turns if turn]))
    return talks


def write_script(talks, folder):
    """What is typed into `kim chat`, and the pictures that it names."""
    lines = []
    for i, (seen, turns) in enumerate(talks):
        lines.append("/clear")
        rng = np.random.default_rng([SEED, 1, i])
        for k, scene in enumerate(seen):
            path = os.path.join(folder, f"{i}-{k}.png")
            scenes.draw_scene(rng, scene).save(path)
            lines.append(f"/image {path}")
        lines += [question for _, question, _ in turns]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kim")
    parser.add_argument("text")
    parser.add_argument("mmproj")
    parser.add_argument("--device", default="0")
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--wrong", help="file for the answers that are not right")
    options = parser.parse_args()
    talks = make_talks(options.scenes)
    with tempfile.TemporaryDirectory() as folder:
        script = write_script(talks, folder)
        done = subprocess.run(
            [options.kim, "chat", "-m", options.text, "--mmproj", options.mmproj, "--device",
             options.device, "-i", "-q", "--greedy", "-n", "120"],
            input=script, capture_output=True, text=True)
    answers = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    turns = [turn for _, turns in talks for turn in turns]
    if done.returncode or len(answers) != len(turns):
        raise SystemExit(f"kim gave {len(answers)} answers to {len(turns)} questions:\n"
                         f"{done.stderr[-2000:]}")
    right, all_, wrong = collections.Counter(), collections.Counter(), []
    for (kind, question, expected), answer in zip(turns, answers):
        group = questions.GROUPS[kind]
        all_[group] += 1
        right[group] += answer == expected
        if answer != expected:
            wrong.append(f"{group}\n  asked    {question}\n  expected {expected}\n"
                         f"  got      {answer}\n")
    if options.wrong:
        with open(options.wrong, "w") as file:
            file.write("".join(wrong))
    print("| group | questions | right | target |\n|---|---|---|---|")
    for group in [*TARGETS, *(g for g in all_ if g not in TARGETS)]:
        print(f"| {group} | {all_[group]} | {100 * right[group] / all_[group]:.1f}% | "
              f"{TARGETS.get(group, '-')} |")
    missed = [g for g, t in TARGETS.items() if 100 * right[g] < t * all_[g]]
    if missed:
        raise SystemExit(f"below target: {', '.join(missed)}")


if __name__ == "__main__":
    main()
