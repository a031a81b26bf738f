"""One reader stays where it is while another connection writes and publishes pages that the reader has not looked at yet."""
import os
import sqlite3

loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
loader.close()

uri = f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}&takeover=1"
reader = sqlite3.connect(uri, uri=True, isolation_level=None)
writer = sqlite3.connect(uri, uri=True, isolation_level=None)
reader.execute("BEGIN")
before = reader.execute("SELECT b FROM t WHERE a = 1").fetchone()
assert before != ("new",), before

writer.execute("UPDATE t SET b = 'new'")
(position,) = writer.execute("PRAGMA littoral_checkpoint").fetchone()
assert position.startswith("2."), position

# As of its own transaction, whatever the volume has by now.
assert reader.execute("SELECT count(*) FROM t WHERE b = 'new'").fetchone() == (0,)
assert reader.execute("SELECT count(*), sum(length(b)) FROM t").fetchone() == (5000, 5000 * 400)
reader.execute("COMMIT")
assert reader.execute("SELECT count(*) FROM t WHERE b = 'new'").fetchone() == (5000,)
assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
