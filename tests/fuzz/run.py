"""Hands damaged files to processes, and counts what becomes of them."""

import argparse
import collections
import contextlib
import json
import os
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time

SECONDS = 10.0
_START_SECONDS = 300.0
BAD = ("escaped", "crash", "hang")


class Worker:
    """A process, and the one after it where it ended.

    Args:
        folder: of the sound files.
    """

    def __init__(self, folder):
        self._folder = folder
        self._child = None

    def ask(self, request, seconds=SECONDS):
        """`(outcome, message)`; a process that ended is a crash."""
        if self._child is None:
            self._start()
            if "make" not in request:
                self._exchange({"ready": True}, _START_SECONDS)
        return self._exchange(request, seconds)

    def close(self):
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            with contextlib.suppress(OSError):
                self._child.stdin.close()
            self._child.stdout.close()
            self._errors.close()
            self._child = None

    def _start(self):
        self._errors = tempfile.TemporaryFile()
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def _exchange(self, request, seconds):
        child = self._child
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
        except OSError:
            return self._ended()
        readable, _, _ = select.select([child.stdout], [], [], seconds)
        if not readable:
            self.close()
            return "hang", f"more than {seconds:g} seconds"
        line = child.stdout.readline()
        return tuple(json.loads(line)) if line else self._ended()

    def _ended(self):
        code = self._child.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")[-1500:]
        self.close()
        return "crash", f"exit code {code}: {text}"


def fuzz(targets, count, seed=0, workers=1, say=None):
    """Runs damaged files.

    Args:
        targets: names of `tests.fuzz.targets.TARGETS`.
        count: how many files, shared among the targets.
        seed: the first of their seeds.
        workers: number of processes.
        say: `function(text)` for progress.

    Returns:
        `(counts, bad)`: dict from target to a counter of outcomes, and a list
        of `(target, seed, outcome, message, seconds)`.
    """
    folder = tempfile.mkdtemp()
    first = Worker(folder)
    made = first.ask({"make": True}, _START_SECONDS)
    if made[0] != "made":
        raise RuntimeError(made[1])
    jobs = queue.Queue()
    for name in targets:
        jobs.put((name, None))  # sound
    for i in range(count):
        jobs.put((targets[i % len(targets)], seed + i // len(targets)))
    counts = {name: collections.Counter() for name in targets}
    bad, slowest = [], [0.0]

    def work(worker):
        while True:
            try:
                target, number = jobs.get_nowait()
            except queue.Empty:
                worker.close()
                return
            start = time.perf_counter()
            outcome, text = worker.ask({"target": target, "seed": number})
            seconds = time.perf_counter() - start
            if number is None:
                if outcome != "accepted":
                    bad.append((target, number, "escaped", text, seconds))
                continue
            counts[target][outcome] += 1
            if outcome != "hang":
                slowest[0] = max(slowest[0], seconds)
            if outcome in BAD or outcome == "unnamed":
                bad.append((target, number, outcome, text, seconds))
            if say is not None and jobs.qsize() % 100 == 0:
                say(f"{jobs.qsize()} left")

    pool = [first, *(Worker(folder) for _ in range(workers - 1))]
    threads = [threading.Thread(target=work, args=(w,)) for w in pool]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts, bad


def main():
    """Prints the counts; exit code 1 where something went wrong."""
    parser = argparse.ArgumentParser("python -m tests.fuzz")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="a part of the names of targets")
    args = parser.parse_args()
    from tests.fuzz.names import TARGETS

    chosen = [n for n in TARGETS if args.only is None or args.only in n]
    counts, bad = fuzz(
        chosen,
        args.count,
        args.seed,
        args.workers,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    kinds = ("accepted", "refused", "unnamed", *BAD)
    print("".join(f"{k:>10}" for k in ("", *kinds)))
    for name, found in counts.items():
        cells = "".join(f"{found[k]:>10}" for k in kinds)
        print(f"{name:<16}{cells}")
    for target, seed, outcome, text, seconds in bad:
        print(f"\n{outcome}: {target}, seed {seed}, {seconds:.1f} s\n{text}")
    return int(any(row[2] in BAD for row in bad))
