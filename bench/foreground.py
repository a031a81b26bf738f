#!/usr/bin/env python3
"""What the VFS costs whoever only uses SQLite: the stock VFS and ours, side by side.

    python3 bench/foreground.py EXTENSION.so [--pairs 30] [--only WORD] [--thread]

Each workload runs in a process of its own, under the stock VFS and under ours in turn, so that whatever else the machine does meets
both. Printed are the median of the ratios of neighbours, and the interval that holds the true median with 95 % certainty (by the order
of the ratios, without assuming how they are spread). Time spent in the process that runs SQL is counted, loading and opening are not: on the
clock, and of the processor by the thread that runs SQL, user and system, which others on the machine disturb less.

A database under ours ships what is committed by itself, as by default: to a folder, once a second, by threads of its own in the same process. Its
first publication is waited for before anything is counted. A process with more than one thread takes the C library's locks for real; with
`--thread` the stock one has a thread too, which sleeps.
"""

import json
import math
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

WORKLOADS = ["bulk load", "small transactions, NORMAL", "small transactions, FULL", "point reads", "scans", "4 processes"]


def connect(extension, folder):
    path = os.path.join(folder, "app.db")
    if extension == "-":
        if os.environ.get("IDLE_THREAD"):
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        return sqlite3.connect(path, isolation_level=None, timeout=60)
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(extension)
    loader.close()
    return sqlite3.connect(f"file:{path}?vfs=littoral", uri=True, isolation_level=None, timeout=60)


def fill(conn, rows):
    conn.execute("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b TEXT, c INTEGER)")
    conn.execute("BEGIN")
    conn.executemany("INSERT INTO t VALUES (?, ?, ?)", ((n, f"{n * 2654435761 % 2**32:x}" * 20, n % 97) for n in range(rows)))
    conn.execute("COMMIT")


def published(conn, extension):
    """Waits until the object store has what is committed."""
    while extension != "-" and not dict(conn.execute("SELECT name, value FROM littoral_status"))["safe"].startswith("yes"):
        time.sleep(0.02)


class Timed:
    """Seconds on the clock, and of the processor by this thread."""

    def __enter__(self):
        self.began = time.perf_counter(), time.thread_time()
        return self

    def __exit__(self, *_):
        self.took = [time.perf_counter() - self.began[0], time.thread_time() - self.began[1]]


def transactions(conn, extension, level, count):
    conn.execute(f"PRAGMA synchronous = {level}")
    conn.execute("CREATE TABLE IF NOT EXISTS s(a INTEGER PRIMARY KEY, b TEXT)")
    published(conn, extension)
    with Timed() as timed:
        for n in range(count):
            conn.execute("INSERT INTO s(b) VALUES (?)", (f"{n:x}" * 30,))
    return timed.took


def work(extension, workload, folder):
    """Seconds that a workload takes."""
    conn = connect(extension, folder)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = NORMAL")
    if workload == "bulk load":
        with Timed() as timed:
            fill(conn, 150_000)
            conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return timed.took
    if workload.startswith("small"):
        return transactions(conn, extension, workload.split()[-1], 12_000)
    if workload == "4 processes":
        conn.execute("CREATE TABLE s(a INTEGER PRIMARY KEY, b TEXT)")
        published(conn, extension)
        timed = Timed().__enter__()
        children = [subprocess.Popen([sys.executable, __file__, "--child", extension, folder]) for _ in range(4)]
        if any(child.wait() for child in children):
            raise SystemExit("a process failed")
        timed.__exit__()
        return [timed.took[0], 0.0]
    fill(conn, 150_000)
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    conn.execute("PRAGMA cache_size = 100")
    published(conn, extension)
    with Timed() as timed:
        if workload == "point reads":
            for n in range(40_000):
                conn.execute("SELECT b FROM t WHERE a = ?", (n * 7919 % 150_000,)).fetchone()
        else:
            for n in range(12):
                conn.execute("SELECT count(*), sum(length(b)) FROM t WHERE c <> ?", (n,)).fetchone()
    return timed.took


def once(extension, workload):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--work", extension, workload, folder]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LITTORAL_")}
        done = subprocess.run(command, check=True, capture_output=True, env=environment)
        return json.loads(done.stdout)


def interval(ratios):
    """Which of the ordered ratios hold the median between them, with 95 %."""
    count, tail, low = len(ratios), 0.0, 0
    while tail + math.comb(count, low) / 2**count <= 0.025:
        tail += math.comb(count, low) / 2**count
        low += 1
    ordered = sorted(ratios)
    low = max(low - 1, 0)
    return ordered[low], ordered[count - 1 - low]


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--work"]:
        print(json.dumps(work(*arguments[1:])))
        return
    if arguments[:1] == ["--child"]:
        conn = connect(*arguments[1:])
        conn.execute("PRAGMA synchronous = NORMAL")
        transactions(conn, "-", "NORMAL", 1_500)
        return
    pairs = int(arguments[arguments.index("--pairs") + 1]) if "--pairs" in arguments else 30
    if not arguments or arguments[0].startswith("-") or pairs < 6:
        raise SystemExit(__doc__)
    extension = os.path.abspath(arguments[0])
    os.environ["IDLE_THREAD"] = "yes" if "--thread" in arguments else ""
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    print(f"{'':30} clock   95 %             processor  95 %             stock     ours   ({pairs} pairs)")
    for workload in [workload for workload in WORKLOADS if only in workload]:
        stock, ours = [], []
        for nth in range(pairs):
            # Who goes first changes, so that neither always finds the other's traces.
            order = [("-", stock), (extension, ours)]
            for which, times in order if nth % 2 == 0 else reversed(order):
                times.append(once(which, workload))
        shown = []
        for kind in (0, 1):
            ratios = [mine[kind] / theirs[kind] for mine, theirs in zip(ours, stock) if theirs[kind]]
            shown.append("{:.3f}   {:.3f} to {:.3f}".format(statistics.median(ratios), *interval(ratios)) if ratios else f"{'-':22}")
        middle = [statistics.median(times[0] for times in which) for which in (stock, ours)]
        print(f"{workload:30} {shown[0]}   {shown[1]}   {middle[0]:.3f} s  {middle[1]:.3f} s", flush=True)


if __name__ == "__main__":
    main()
