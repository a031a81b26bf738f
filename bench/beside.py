#!/usr/bin/env python3
"""What commits wait for while a checkpoint runs beside them, in another process.

    python3 bench/beside.py EXTENSION.so [--pairs 10] [--mb 300] [--remote URL]

A database that is all here, in WAL mode, is published whole for the first time, and meanwhile one row is inserted and one updated in each
of as many transactions as there is time for; then as many again without anything beside them, and as many beside a process that only
counts, which says what the mere loss of a processor costs. The order changes from pair to pair. Printed are medians over the pairs:
the 99th percentile of a commit's duration alone, and the ratios of neighbours. Without --remote, a folder is the object store.
"""

import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

# What the first commits cost says more of the page cache than of a commit.
WARM = 200
COMMITS_MIN = 1_000


def connect(extension, path, remote):
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(extension)
    loader.close()
    return sqlite3.connect(f"file:{path}?vfs=littoral&remote={remote}", uri=True, isolation_level=None, timeout=60)


def fill(path, megabytes):
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT)")
    conn.execute("CREATE TABLE log(a INTEGER PRIMARY KEY, b TEXT)")
    words = [f"{n * 2654435761 % 2**32:x}" for n in range(4096)]
    conn.execute("BEGIN")
    rows = megabytes * 2_000
    text = lambda n: " ".join(words[(n * 31 + i * i * 7) % 4096] for i in range(55))
    conn.executemany("INSERT INTO t VALUES (?, ?)", ((n, text(n)) for n in range(rows)))
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
    return rows


def beside(what, extension, path, remote):
    """The process beside the commits; says when it begins, and ends by itself when there is nothing more to do."""
    if what == "busy":
        print("begun", flush=True)
        while True:
            pass
    conn = connect(extension, path, remote)
    conn.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    print("begun", flush=True)
    conn.execute("PRAGMA littoral_checkpoint").fetchall()
    conn.close()


def commits(conn, rows, level, until):
    """Durations of commits, in nanoseconds, as long as `until` says so."""
    conn.execute(f"PRAGMA synchronous = {level}")
    taken, n = [], 0
    clock = time.perf_counter_ns
    while until(len(taken)):
        n += 1
        began = clock()
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("INSERT INTO log(b) VALUES (?)", (f"{n:x}" * 12,))
        conn.execute("UPDATE t SET b = ? || substr(b, 10) WHERE a = ?", (f"{n:09x}", n * 7919 % rows))
        conn.execute("COMMIT")
        taken.append(clock() - began)
    return taken


def p99(taken):
    ordered = sorted(taken)
    return ordered[len(ordered) * 99 // 100]


def once(extension, folder, rows, remote, level, what, count):
    """The 99th percentile, and how many commits there were."""
    path = os.path.join(folder, "app.db")
    conn = connect(extension, path, remote)
    commits(conn, rows, level, lambda done: done < WARM)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LITTORAL_")}
    child = None
    if what != "alone":
        command = [sys.executable, __file__, "--beside", what, extension, path, remote]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout.readline() == "begun\n"
    began = time.perf_counter()
    if what == "checkpoint":
        taken = commits(conn, rows, level, lambda done: child.poll() is None)
        if child.wait() != 0 or len(taken) < COMMITS_MIN:
            raise SystemExit(f"the checkpoint failed, or was over after {len(taken)} commits: take more --mb")
    else:
        taken = commits(conn, rows, level, lambda done: done < count)
    seconds = time.perf_counter() - began
    if what == "busy":
        child.kill()
        child.wait()
    conn.close()
    return p99(taken), len(taken), seconds


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--beside"]:
        beside(*arguments[1:])
        return
    if not arguments or arguments[0].startswith("-"):
        raise SystemExit(__doc__)
    option = lambda name, default: arguments[arguments.index(name) + 1] if name in arguments else default
    extension, pairs, megabytes = os.path.abspath(arguments[0]), int(option("--pairs", 10)), int(option("--mb", 300))
    print(f"{'':8} p99 alone   beside a checkpoint   beside a busy loop   commits during a checkpoint   ({pairs} pairs, {megabytes} MB)")
    for level in ["NORMAL", "FULL"]:
        alone, with_checkpoint, with_busy, counts, rates = [], [], [], [], []
        with tempfile.TemporaryDirectory() as folder:
            rows = fill(os.path.join(folder, "app.db"), megabytes)
            for nth in range(pairs):
                # A volume that nobody has yet, so that all of the database is read, compressed and uploaded.
                shutil.rmtree(os.path.join(folder, ".littoral"), ignore_errors=True)
                remote = f"{option('--remote', 'file://' + folder + '/remote')}/{level}{nth}"
                if remote.startswith("file://"):
                    os.makedirs(remote.removeprefix("file://"))
                one = lambda what, count: once(extension, folder, rows, remote, level, what, count)
                if nth % 2 == 0:
                    ours, count, seconds = one("checkpoint", 0)
                    busy, plain = one("busy", count)[0], one("alone", count)[0]
                else:
                    plain, busy = one("alone", counts[-1])[0], one("busy", counts[-1])[0]
                    ours, count, seconds = one("checkpoint", 0)
                alone.append(plain)
                with_checkpoint.append(ours / plain)
                with_busy.append(busy / plain)
                counts.append(count)
                rates.append(seconds)
                shutil.rmtree(remote.removeprefix("file://"), ignore_errors=True)
                if "--each" in arguments:
                    print(json.dumps([plain, ours / plain, busy / plain, count, seconds]), flush=True)
        median = statistics.median
        print(
            f"{level:8} {median(alone) / 1e6:6.3f} ms   {median(with_checkpoint):6.2f} ({min(with_checkpoint):.2f} to"
            f" {max(with_checkpoint):.2f})   {median(with_busy):6.2f} ({min(with_busy):.2f} to {max(with_busy):.2f})"
            f"   {median(counts):.0f} in {median(rates):.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
