#!/usr/bin/env python3
"""Many databases of several tenants on one store with a quota: how long checkpoints take, how much waits, and whether the accounts are right.

    python3 bench/tenants.py LITTORAL EXTENSION.so [--databases 10] [--tenants 3] [--seconds 60] [--quota 300] [--kills 5] [--seed 1]

Each database has a process of its own that commits (the extension loaded into this Python's sqlite3, `tenant=` and `quota=` in its URI) and ships by itself.
Beside them checkpoints are made by command, of one database after the other, a few of which are killed in the middle. All share one `.littoral/`. What
is reported: the median and 99th percentile of a checkpoint, the deepest queue of jobs, the most that was taken of the quota, by all and by each tenant, and,
when everybody has ended, what is still taken (nothing) beside what lies in the scratch (nothing). Then every database is restored elsewhere and compared. Any
process that breaks down, any bound that is passed and any byte that stays taken ends it with 1.
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

if not hasattr(sqlite3.Connection, "enable_load_extension"):
    raise SystemExit(f"{sys.executable} cannot load extensions: take one that can, Debian's /usr/bin/python3 for one")

WRITER = """
import os, random, sqlite3, sys, time
extension, uri, seed, until = sys.argv[1:5]
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(extension)
conn = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, body BLOB)")
chance = random.Random(int(seed))
commits = 0
while time.time() < float(until):
    conn.execute("BEGIN IMMEDIATE")
    for _ in range(chance.randrange(1, 40)):
        conn.execute("INSERT OR REPLACE INTO t VALUES (?, ?)", (chance.randrange(20000), chance.randbytes(chance.randrange(50, 900))))
    conn.execute("COMMIT")
    commits += 1
    time.sleep(chance.random() * 0.05)
print(commits)
conn.close()
"""


def option(words, name, default):
    return type(default)(words[words.index(name) + 1]) if name in words else default


def percentile(numbers, part):
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


def stopped(writers, why):
    for writer in writers:
        writer.kill()
    raise SystemExit(why)


def main(words):
    littoral, extension = (os.path.abspath(word) for word in words[:2])
    count, tenants = option(words, "--databases", 10), option(words, "--tenants", 3)
    seconds, quota = option(words, "--seconds", 60), option(words, "--quota", 300) * 1_000_000
    kills, seed = option(words, "--kills", 5), option(words, "--seed", 1)
    chance = random.Random(seed)
    root = tempfile.mkdtemp(prefix="littoral-tenants-")
    remote, store = f"file://{root}/remote", os.path.join(root, ".littoral")
    share = quota // tenants
    with open(os.path.join(root, "littoral.toml"), "w") as config:
        config.write(f'store = "{store}"\nremote = "{remote}"\nquota = {quota}\n[tenants]\n')
        config.writelines(f'tenant{nth} = {share}\n' for nth in range(tenants))
    env = {key: value for key, value in os.environ.items() if not key.startswith("LITTORAL_")}
    env["LITTORAL_CONFIG"] = os.path.join(root, "littoral.toml")
    names = [f"db{nth}.db" for nth in range(count)]
    tenant_of = {name: f"tenant{nth % tenants}" for nth, name in enumerate(names)}

    def run(*arguments, good=True):
        done = subprocess.run([littoral, *arguments], cwd=root, env=env, capture_output=True, text=True)
        if good and done.returncode != 0:
            raise SystemExit(f"littoral {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
        return done

    def told(*arguments):
        return json.loads(run(*arguments, "--json").stdout)

    most, most_of, depths = 0, dict.fromkeys(tenant_of.values(), 0), []
    over = threading.Event()

    def look():
        """What is taken and what waits, while checkpoints are made: of one database after the other."""
        nonlocal most
        while not over.is_set():
            for name in names:
                tenant = tenant_of[name]
                done = run("status", name, "--tenant", tenant, "--json", good=False)
                if done.returncode == 5:
                    continue  # It has not been published yet.
                if done.returncode != 0:
                    trouble.append(f"status {name}: {done.returncode}: {done.stderr}")
                    return
                status = json.loads(done.stdout)
                most = max(most, status["quota"]["used"])
                most_of[tenant] = max(most_of[tenant], status["quota"]["tenant"]["used"])
                depths.append((status["jobs"] or {}).get("depth", 0))

    trouble = []

    until = time.time() + seconds
    writers = []
    for nth, name in enumerate(names):
        uri = f"file:{name}?vfs=littoral&volume={name}&tenant={tenant_of[name]}"
        command = [sys.executable, "-c", WRITER, extension, uri, str(seed * 1000 + nth), str(until)]
        writers.append(subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.PIPE, text=True))
    took, refused, left_to_kill = [], 0, kills
    time.sleep(min(3, seconds / 4))
    looking = threading.Thread(target=look)
    looking.start()
    while time.time() < until - 2:
        name = chance.choice(names)
        begun = time.monotonic()
        making = subprocess.Popen(
            [littoral, "checkpoint", name, "--tenant", tenant_of[name], "--json"], cwd=root, env=env,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        if left_to_kill and chance.random() < 0.3:
            time.sleep(chance.random() * 0.2)
            making.send_signal(signal.SIGKILL)
            left_to_kill -= 1
        _, why = making.communicate()
        if making.returncode == 0:
            took.append(time.monotonic() - begun)
        elif making.returncode > 0:
            # Somebody else is at work, or there is no room: backpressure, with its reason.
            refused += 1
            if "way out" not in why and "quota" not in why and "at work" not in why:
                stopped(writers, f"a checkpoint failed without a reason: {why}")
    over.set()
    looking.join()
    if trouble:
        stopped(writers, trouble[0])
    commits = 0
    for writer in writers:
        out, _ = writer.communicate(timeout=300)
        if writer.returncode != 0:
            raise SystemExit(f"a writer ended with {writer.returncode}")
        commits += int(out)
    # Everybody has gone: whoever comes next sweeps what the killed ones left.
    for name in names:
        run("jobs", "run", name, "--tenant", tenant_of[name])
        run("checkpoint", name, "--tenant", tenant_of[name])
    status = told("status", names[0], "--tenant", tenant_of[names[0]])
    still, scratch = status["quota"]["used"], 0
    for folder, _, files in os.walk(os.path.join(store, "checkpoint_scratch")):
        scratch += sum(os.path.getsize(os.path.join(folder, file)) for file in files)
    differ = 0
    for name in names:
        back = os.path.join(root, f"back-{name}")
        run("restore", name, back, "--quiet")
        question = "PRAGMA integrity_check", "SELECT count(*), sum(length(body)), sum(n) FROM t"
        here, there = (
            [sqlite3.connect(path).execute(sql).fetchall() for sql in question] for path in (os.path.join(root, name), back)
        )
        differ += here != there or here[0] != [("ok",)]
    passed = most > quota or any(used > share for used in most_of.values())
    print(f"{count} databases of {tenants} tenants, {commits} commits in {seconds} s; {kills - left_to_kill} checkpoints killed, {refused} told to wait")
    print(f"checkpoint: median {percentile(took, 0.5):.3f} s, p99 {percentile(took, 0.99):.3f} s, of {len(took)}")
    print(f"queue: {max(depths, default=0)} jobs at most waited or ran")
    print(f"quota: {most:,} of {quota:,} bytes at most; by tenant {most_of}, of {share:,} each")
    print(f"afterwards: {still} bytes taken, {scratch} bytes in the scratch, {differ} databases that did not come back the same")
    shutil.rmtree(root, ignore_errors=True)
    return 1 if passed or still or scratch or differ else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1:]))
