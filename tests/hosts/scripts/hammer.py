"""Reads a replica of the bank over and over, and says so: each transaction sees one state, and none an older one than before.

    hammer.py URI
"""
import os
import random
import sqlite3
import sys

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
conns = [sqlite3.connect(sys.argv[1], uri=True, isolation_level=None) for _ in range(2)]
last = -1
while True:
    conn = random.choice(conns)
    conn.execute("BEGIN")
    before = conn.execute("SELECT n FROM step").fetchone()[0]
    assert before >= last, (before, last)
    last = before
    total = conn.execute("SELECT sum(amount), count(*) FROM account NOT INDEXED").fetchone()
    assert total == (2000000, 2000), total
    through = conn.execute("SELECT sum(amount), count(*) FROM account INDEXED BY by_amount WHERE amount > -1000000").fetchone()
    assert through == (2000000, 2000), through
    for _ in range(20):
        row = conn.execute("SELECT owner FROM account WHERE id = ?", (random.randint(1, 2000),)).fetchone()
        assert row[0].startswith("owner "), row
    assert conn.execute("SELECT n FROM step").fetchone()[0] == before
    conn.execute("COMMIT")
    print(before, flush=True)
