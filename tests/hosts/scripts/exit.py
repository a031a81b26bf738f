"""Ends in the way that its argument says, with a connection open and a transaction in it; or looks at what that left."""
import os
import sqlite3
import sys

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
uri = f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}"
conn = sqlite3.connect(uri, uri=True, isolation_level=None)
how = sys.argv[1]
if how == "look":
    assert conn.execute("SELECT count(*) FROM t").fetchone() == (int(sys.argv[2]),)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.execute("PRAGMA littoral_checkpoint").fetchone()
    conn.close()
    sys.exit()
conn.execute("PRAGMA journal_mode = WAL")
conn.execute("CREATE TABLE IF NOT EXISTS t(x)")
conn.execute("INSERT INTO t VALUES ('before the checkpoint')")
conn.execute("PRAGMA littoral_checkpoint").fetchone()
conn.execute("INSERT INTO t VALUES ('after it')")
conn.execute("BEGIN")
conn.execute("INSERT INTO t VALUES ('never committed')")
if how == "at once":
    os._exit(0)
if how == "killed":
    os.kill(os.getpid(), 9)
# Otherwise Python ends as it likes to, with everything open.
