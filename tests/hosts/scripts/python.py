"""Python's own sqlite3: writes, checkpoints."""
import os
import sqlite3

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
loader.close()

conn = sqlite3.connect(f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}", uri=True)
conn.execute("PRAGMA journal_mode = WAL")
with conn:
    conn.execute("CREATE TABLE t(n INTEGER, text TEXT)")
    conn.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"text {n}") for n in range(1, 1001)])
(position,) = conn.execute("PRAGMA littoral_checkpoint").fetchone()
assert position.startswith("1."), position
status = dict(conn.execute("SELECT name, value FROM littoral_status"))
assert status["position"] == position, status
assert status["safe"].startswith("yes"), status
conn.close()
