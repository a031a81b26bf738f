"""A machine that has nothing: the database is opened from the object store, page by page, by both of Python's SQLites in turn."""
import os
import sqlite3
import sys

import apsw

extension = os.environ["EXTENSION"]
uri = f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}"
question = "SELECT count(*), sum(n), sum(length(text)), min(text), max(text) FROM t"
if sys.argv[1] == "sqlite3":
    conn = sqlite3.connect(":memory:")
    conn.enable_load_extension(True)
    conn.load_extension(extension)
    conn = sqlite3.connect(uri, uri=True)
    rows = conn.execute(question).fetchall()
else:
    conn = apsw.Connection(":memory:")
    conn.enable_load_extension(True)
    conn.load_extension(extension)
    conn = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI)
    rows = list(conn.execute(question))
print("|".join(str(value) for value in rows[0]))
conn.close()
