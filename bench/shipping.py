#!/usr/bin/env python3
"""What it costs to ship small transactions as they come: requests and bytes, counted in the object store.

    python3 bench/shipping.py EXTENSION.so [--transactions 5000] [--rate 500] [--mb 100] [--every 1.0] [--autocheckpoint 1000]

A database of that size with two indexes is published whole; then each transaction updates one row by its key and inserts one, at that rate,
and every so often one `PRAGMA littoral_sync` brings what was committed. SQLite starts the WAL over when it has `--autocheckpoint` pages: where that
is more often than a sync, there is no telling commits apart, and a sync is a checkpoint. Counted from there on are the records and blobs that came, by
kind, and their bytes, over the bytes of the pages that changed: each page once for each record that brought it.
The folder that is the object store is read afterwards: nothing that is measured is in the way of it.
"""

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

PAGE = 4096


def option(words, name, default):
    return type(default)(words[words.index(name) + 1]) if name in words else default


def text(chance, low, high):
    words = ("invoice", "paid", "ship", "order", "note", "customer", "street", "city", "total", "due", "items", "mail")
    out = ""
    while len(out) < low:
        out += f"{chance.choice(words)} {chance.randrange(10**6):x} "
    return out[:high]


def fill(conn, megabytes, chance, autocheckpoint):
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("PRAGMA synchronous = NORMAL")
    conn.execute(f"PRAGMA wal_autocheckpoint = {autocheckpoint}")
    conn.execute("CREATE TABLE customer(id INTEGER PRIMARY KEY, city TEXT, notes TEXT)")
    conn.execute("CREATE TABLE event(id INTEGER PRIMARY KEY, customer INTEGER, what TEXT)")
    conn.execute("CREATE INDEX by_city ON customer(city)")
    conn.execute("CREATE INDEX by_customer ON event(customer)")
    conn.execute("BEGIN")
    rows = megabytes * 2_300
    cities = [text(chance, 8, 14) for _ in range(500)]
    conn.executemany(
        "INSERT INTO customer VALUES (?, ?, ?)",
        ((n, chance.choice(cities), text(chance, 280, 480)) for n in range(rows)),
    )
    conn.execute("COMMIT")
    return rows


def objects(remote):
    found = {}
    for folder, _, names in os.walk(remote):
        for name in names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, remote)] = os.path.getsize(path)
    return found


def main():
    words = sys.argv[1:]
    extension = os.path.abspath(words[0])
    transactions, rate = option(words, "--transactions", 5000), option(words, "--rate", 500)
    megabytes, every = option(words, "--mb", 100), option(words, "--every", 1.0)
    folder = tempfile.mkdtemp(prefix="littoral-shipping-")
    chance = random.Random(7)
    try:
        remote, path = os.path.join(folder, "remote"), os.path.join(folder, "app.db")
        os.mkdir(remote)
        loader = sqlite3.connect(":memory:")
        loader.enable_load_extension(True)
        loader.load_extension(extension)
        conn = sqlite3.connect(
            f"file:{path}?vfs=littoral&remote=file://{remote}", uri=True, isolation_level=None, timeout=60
        )
        rows = fill(conn, megabytes, chance, option(words, "--autocheckpoint", 1000))
        conn.execute("PRAGMA littoral_checkpoint").fetchall()
        before = objects(remote)
        began, synced, syncs, waited = time.monotonic(), time.monotonic(), 0, 0.0
        for n in range(transactions):
            due = began + n / rate
            if due > time.monotonic():
                time.sleep(due - time.monotonic())
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("UPDATE customer SET notes = ? WHERE id = ?", (text(chance, 280, 480), chance.randrange(rows)))
            conn.execute("INSERT INTO event(customer, what) VALUES (?, ?)", (chance.randrange(rows), text(chance, 60, 60)))
            conn.execute("COMMIT")
            if time.monotonic() - synced >= every:
                asked = time.monotonic()
                conn.execute("PRAGMA littoral_sync").fetchall()
                synced, syncs = time.monotonic(), syncs + 1
                waited += synced - asked
        conn.execute("PRAGMA littoral_sync").fetchall()
        syncs += 1
        took = time.monotonic() - began
        came = {name: size for name, size in objects(remote).items() if name not in before}
        cli = os.path.join(os.path.dirname(extension), "littoral")
        told = json.loads(
            subprocess.run(
                [cli, "history", f"file://{remote}/app.db", "--json", "--limit", "500"], check=True, capture_output=True
            ).stdout
        )
        pages = sum(record["pages_changed"] for record in told["records"][:-2])
        kinds = {}
        for record in told["records"][:-2]:
            kinds[record["kind"]] = kinds.get(record["kind"], 0) + 1
        sent = sum(came.values())
        print(f"{transactions} transactions in {took:.1f} s, {syncs} syncs of {waited / max(syncs - 1, 1) * 1000:.0f} ms on average")
        print(f"records: {', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}")
        print(f"objects: {len(came)}, {sent:,} bytes; largest {max(came.values()):,}")
        print(f"pages shipped: {pages:,} ({pages * PAGE:,} bytes); sent over that: {sent / (pages * PAGE):.3f}")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        here = conn.execute("SELECT count(*), sum(length(notes)) FROM customer").fetchone()
        conn.close()
        subprocess.run([cli, "restore", f"file://{remote}/app.db", os.path.join(folder, "back.db")], check=True, capture_output=True)
        back = sqlite3.connect(os.path.join(folder, "back.db"))
        same = back.execute("SELECT count(*), sum(length(notes)) FROM customer").fetchone() == here
        print(f"restored: {'the same' if same else 'NOT THE SAME'}, {back.execute('PRAGMA integrity_check').fetchone()[0]}")
        return 0 if same else 1
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
