"""A child has its parent's memory and none of its threads and locks: it opens its own connection, and the parent's goes on."""
import os
import sqlite3
import sys

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
uri = f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}"
conn = sqlite3.connect(uri, uri=True)
conn.execute("PRAGMA journal_mode = WAL")
with conn:
    conn.execute("CREATE TABLE t(who TEXT)")
    conn.execute("INSERT INTO t VALUES ('parent, before')")
before = conn.execute("PRAGMA littoral_checkpoint").fetchone()[0]

child = os.fork()
if child == 0:
    status = 1
    try:
        mine = sqlite3.connect(uri, uri=True)
        with mine:
            mine.execute("INSERT INTO t VALUES ('child')")
        position = mine.execute("PRAGMA littoral_checkpoint").fetchone()[0]
        assert position != before, position
        other = sqlite3.connect("file:childs.db?vfs=littoral", uri=True)
        other.execute("CREATE TABLE t(x)")
        other.execute("PRAGMA littoral_checkpoint").fetchone()
        other.close()
        mine.close()
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(child, 0)[1] == 0

# One that ends as Python does closes what it inherited, which SQLite asks nobody to do: it harms nobody.
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0

with conn:
    conn.execute("INSERT INTO t VALUES ('parent, after')")
assert conn.execute("SELECT count(*) FROM t").fetchone() == (3,)
conn.execute("PRAGMA littoral_checkpoint").fetchone()
status = dict(conn.execute("SELECT name, value FROM littoral_status"))
assert status["safe"].startswith("yes"), status
conn.close()
