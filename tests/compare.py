# SPDX-License-Identifier: MIT
"""Measures Kimberlite and llama.cpp by turns, and prints a table; tests/compare.sh runs this."""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

TYPES = "q4_0 q4_1 q5_0 q5_1 q8_0 q2_K q3_K q4_K q5_K q6_K iq4_nl iq4_xs f16 bf16 f32".split()
PROMPT = "The capital of France is"  # 14 tokens with <bos> and the chat template
PROMPT_TOKENS = 14
KERNEL = re.compile(r"type_a=(\w+),.*?\bn=(\d+),.*?([\d.]+) us/run")
M, K = 4096, 14336  # of ggml's test: rows and width
KIM, VULKAN, CPU = "Kimberlite", "llama.cpp, Vulkan", "llama.cpp, CPU"


class Failed(Exception):
    """A run that gave no figure; its text says why."""


class Row:
    """A line of the table: for each side the figures of its turns, or why there are none."""

    def __init__(self, name, unit, more_is_better=True):
        self.name, self.unit, self.more = name, unit, more_is_better
        self.values = {KIM: [], VULKAN: [], CPU: []}
        self.why = {}
        self.at_least = {}  # seconds after which a run was ended

    def cell(self, side):
        v = self.values[side]
        if v:
            spread = f" ± {statistics.stdev(v):.2g}" if len(v) > 1 else ""
            return f"{statistics.mean(v):.4g}{spread} {self.unit}"
        return self.why.get(side, "")

    def ratio(self, side):
        """How many times better Kimberlite is: the median of the pairs."""
        ours, theirs = self.values[KIM], self.values[side]
        if ours and theirs:
            pairs = [a / b if self.more else b / a for a, b in zip(ours, theirs)]
            return f"{statistics.median(pairs):.3g}"
        if ours and side in self.at_least and not self.more:
            return f"> {self.at_least[side] / statistics.mean(ours):.3g}"
        return ""


class Comparison:
    def __init__(self, args):
        self.args = args
        self.rows = []
        self.commands = {}
        self.pairs = 1 if args.quick else 3
        self.limit = args.limit or (300 if args.quick else 4 * 3600)
        self.threads = str(len(os.sched_getaffinity(0)))
        self.kim_device = ["--device", args.device] if args.device else []
        self.device = self.find_device()
        self.described = {}

    def find_device(self):
        """What kim chooses; its index is that of Vulkan, which llama.cpp counts by too."""
        text = subprocess.run([self.args.kim, "devices", "--json"], check=True,
                              stdout=subprocess.PIPE).stdout
        devices = json.loads(text)["devices"]
        want = self.args.device
        for d in devices:
            if (d["default"] if want is None else
                    want in (str(d["index"]), d["uuid"]) or want.lower() in d["name"].lower()):
                return d
        sys.exit(f"error: no device is called {want}")

    def environment(self, side, cold):
        env = dict(os.environ, XDG_CACHE_HOME=os.path.join(self.args.work, "cache"))
        if side != KIM:
            env["GGML_VK_VISIBLE_DEVICES"] = str(self.device["index"]) if side == VULKAN else ""
        if cold:
            env["XDG_CACHE_HOME"] = os.path.join(self.args.work, "cold")
            shutil.rmtree(env["XDG_CACHE_HOME"], ignore_errors=True)
            env.update(MESA_SHADER_CACHE_DISABLE="true", __GL_SHADER_DISK_CACHE="0")
        return env

    def run(self, side, command, cold=False):
        """Returns what it prints, and the seconds that it takes."""
        start = time.monotonic()
        try:
            done = subprocess.run(command, env=self.environment(side, cold), timeout=self.limit,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, errors="replace")
        except subprocess.TimeoutExpired:
            raise Failed(f"over {self.limit} s") from None
        if done.returncode:
            print(done.stderr[-2000:], file=sys.stderr)
            raise Failed(f"failed ({done.returncode})")
        return done.stdout, time.monotonic() - start

    def turn(self, row, side, command, measure):
        """One run of one side; after one that failed there is no other."""
        self.commands.setdefault((row.name, side), command)
        if side in row.why:
            return
        try:
            value = measure(side, command)
        except Failed as why:
            row.why[side] = str(why)
            if str(why).startswith("over"):
                row.at_least[side] = self.limit
            value = None
        else:
            row.values[side].append(value)
        print(f"== {row.name}: {side}: {row.why.get(side) or f'{value:.4g} {row.unit}'}",
              file=sys.stderr)

    # -------------------------------------------------------------------------- what is measured

    def kim_bench(self, *rest):
        return [self.args.kim, "bench", *rest, "-o", "json", *self.kim_device]

    def llama_bench(self, side, *rest):
        layers = ["-ngl", "99" if side == VULKAN else "0"]
        return [f"{self.args.peer}/bin/llama-bench", "-m", self.args.model, *layers,
                "-t", self.threads, *rest]

    def rate(self, side, command):
        rows = json.loads(self.run(side, command)[0])
        self.described.setdefault(side, rows[0])
        return rows[0]["avg_ts"]

    def model(self, name, prompt, gen, depth):
        row = Row(name, "tok/s")
        self.rows.append(row)
        shape = ["-p", str(prompt), "-n", str(gen), "-d", str(depth), "-r", "1"]
        for _ in range(1 if depth else self.pairs):  # that far llama.cpp takes minutes on a CPU
            self.turn(row, KIM, self.kim_bench("model", "-m", self.args.model, *shape), self.rate)
            for side in (VULKAN, CPU):
                self.turn(row, side, self.llama_bench(side, *shape, "-o", "json"), self.rate)

    def first_token(self):
        """From the start of the process to its end, after one token; nothing is compiled before."""
        row = Row("start to first token, nothing compiled before", "s", more_is_better=False)
        self.rows.append(row)
        kim = [self.args.kim, "chat", "-m", self.args.model, "-p", PROMPT, "--greedy", "-n", "1",
               *self.kim_device]
        for side in (KIM, VULKAN, CPU):
            command = kim if side == KIM else self.llama_bench(
                side, "-p", str(PROMPT_TOKENS), "-n", "0", "-r", "1", "--no-warmup")
            self.turn(row, side, command, lambda s, c: self.run(s, c, cold=True)[1])

    def kernel(self, kind, columns):
        row = Row(f"{kind}, {columns} column{'s' if columns > 1 else ''}", "GFLOP/s")
        self.rows.append(row)
        flop = 2e-9 * M * K * columns

        def ours(side, command):
            found = json.loads(self.run(side, command)[0])
            if not found or not found[0]["avg_s"]:
                raise Failed("not timed")
            return flop / found[0]["avg_s"]

        def theirs(side, command):
            found = KERNEL.search(self.run(side, command)[0])
            if not found:
                raise Failed("not supported")
            return flop / (float(found[3]) * 1e-6)

        kim = self.kim_bench("kernels", "--size", "ggml", "--op", "matmul", "--type", kind,
                             "--columns", str(columns))
        peer = [f"{self.args.peer}/bin/test-backend-ops", "perf", "-o", "MUL_MAT", "-b", "Vulkan0",
                "-p", f"type_a={kind},type_b=f32,m={M},n={columns},k={K},"]
        self.turn(row, KIM, kim, ours)  # once: both repeat it for themselves
        self.turn(row, VULKAN, peer, theirs)

    def all(self):
        quick = self.args.quick
        for name, prompt, gen, depth in (
                [("pp32", 32, 0, 0), ("tg4", 0, 4, 0), ("tg4 after 64", 0, 4, 64)] if quick else
                [("pp512", 512, 0, 0), ("tg32", 0, 32, 0), ("tg32 after 4096", 0, 32, 4096)]):
            self.model(name, prompt, gen, depth)
        self.first_token()
        for columns in (1,) if quick else (1, 512):
            for kind in TYPES[:1] if quick else TYPES:
                self.kernel(kind, columns)

    # ------------------------------------------------------------------------------------- output

    def table(self, load):
        print(f"| | {KIM} | {VULKAN} | ratio | {CPU} | ratio |\n|---|---|---|---|---|---|")
        for r in self.rows:
            print(f"| {r.name} | {r.cell(KIM)} | {r.cell(VULKAN)} | {r.ratio(VULKAN)} "
                  f"| {r.cell(CPU)} | {r.ratio(CPU)} |")
        print(f"\nBy turns; rates of the model are mean ± deviation of {self.pairs} run(s), and their "
              f"ratio is the median of the pairs, above 1 where Kimberlite is faster; after a long context, "
              f"and of products, one run. Products: {M} rows, width {K}.")
        ours, theirs = self.described.get(KIM, {}), self.described.get(VULKAN, {})
        cpu = self.described.get(CPU, {})
        print(f"Device: {self.device['name']}; driver: {self.device['driver']}; llama.cpp names it "
              f"\"{theirs.get('gpu_info', '?')}\", the processor \"{cpu.get('cpu_info', '?')}\", "
              f"{self.threads} threads.")
        print(f"Kimberlite: {ours.get('build', '?')}; llama.cpp: {self.args.peer_name}. "
              f"Load of the machine at the start: {load:.2f}.\n")
        print("```")
        for (_, side), command in self.commands.items():
            print(f"{'GGML_VK_VISIBLE_DEVICES= ' if side == CPU else ''}"
                  + " ".join(f"'{c}'" if re.search(r"[ ,=]", c) else c for c in command))
        print("```")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kim", "peer", "peer-name", "model", "work"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--device")
    parser.add_argument("--limit", type=int, help="seconds that one run may take")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"== the machine is not idle (load {load:.2f}): the figures will be too low",
              file=sys.stderr)
    comparison = Comparison(args)
    for stop in (signal.SIGINT, signal.SIGTERM):  # also where a shell had it ignored
        signal.signal(stop, signal.default_int_handler)
    try:
        comparison.all()
    except KeyboardInterrupt:
        print("== stopped: the table has what was measured so far", file=sys.stderr)
    comparison.table(load)


if __name__ == "__main__":
    main()
