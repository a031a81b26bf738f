"""apsw, with the SQLite that it brings: writes, checkpoints."""
import os

import apsw

loader = apsw.Connection(":memory:")
loader.enable_load_extension(True)
loader.load_extension(os.environ["EXTENSION"])
loader.close()
assert "littoral" in apsw.vfs_names(), apsw.vfs_names()

flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
conn = apsw.Connection(f"file:app.db?vfs=littoral&remote={os.environ['REMOTE']}", flags=flags)
conn.pragma("journal_mode", "wal")
conn.execute("CREATE TABLE t(n INTEGER, text TEXT)")
with conn:
    conn.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"text {n}") for n in range(1, 1001)])
position = conn.pragma("littoral_checkpoint")
assert position.startswith("1."), position
status = dict(conn.execute("SELECT name, value FROM littoral_status"))
assert status["position"] == position and status["safe"].startswith("yes"), status
try:
    conn.pragma("littoral_chekpoint")
except apsw.SQLError as error:
    assert "did you mean littoral_checkpoint?" in str(error), error
else:
    raise AssertionError("a pragma that is none was answered")
conn.close()

# Without a URI, by the VFS's name; and what SQLite does not say of a refusal.
plain = apsw.Connection("named.db", vfs="littoral")
plain.execute("CREATE TABLE t(x)")
assert plain.pragma("littoral_checkpoint").startswith("1.")
plain.close()
try:
    apsw.Connection("file:new.db?vfs=littoral&remot=s3://bucket", flags=flags)
except apsw.CantOpenError:
    why = apsw.Connection(":memory:").execute("SELECT littoral_last_error()").get
    assert 'did you mean "remote"?' in why, why
else:
    raise AssertionError("a setting that is none was taken")
