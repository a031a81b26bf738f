"""One of several who read and write a database that is larger than their disk, for as long as nobody kills it.

    small_disk.py URI WHO OF [ROUNDS]

Rows are `t(id, version, body)`; a body follows from id and version, so that whoever reads a row knows whether it is right. Each process
writes the rows of its own (id % OF == WHO), says what it is about to commit, and what was committed."""
import hashlib
import os
import random
import sqlite3
import sys

LENGTH = 3500


def body(row, version):
    seed = hashlib.sha256(f"{row}:{version}".encode()).digest()
    return hashlib.shake_128(seed).digest(LENGTH)


def connect(uri):
    loader = sqlite3.connect(":memory:")
    loader.enable_load_extension(True)
    loader.load_extension(os.environ["EXTENSION"])
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=120)


def check(rows):
    for row, version, found in rows:
        assert found == body(row, version), (row, version, found[:16].hex(), "a wrong page")


if __name__ == "__main__":
    uri, who, of = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else sys.maxsize
    conn = connect(uri)
    assert conn.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    count = conn.execute("SELECT max(id) FROM t").fetchone()[0]
    print("ready", flush=True)
    for _ in range(rounds):
        low = random.randrange(count)
        rows = conn.execute("SELECT id, version, body FROM t WHERE id >= ? LIMIT 20", (low,)).fetchall()
        check(rows)
        check(conn.execute("SELECT id, version, body FROM t WHERE id = ?", (random.randrange(count) + 1,)).fetchall())
        mine = [row for row in random.sample(range(1, count + 1), 40) if row % of == who][: random.randint(1, 12)]
        conn.execute("BEGIN IMMEDIATE")
        changes = []
        for row in mine:
            version = conn.execute("SELECT version FROM t WHERE id = ?", (row,)).fetchone()[0] + 1
            conn.execute("UPDATE t SET version = ?, body = ? WHERE id = ?", (version, body(row, version), row))
            changes.append(f"{row}:{version}")
        print("begun", *changes, flush=True)
        conn.execute("COMMIT")
        print("committed", *changes, flush=True)
