"""Python's SQLite and apsw's, both with the extension: different databases through each, the same one through neither."""
import os
import sqlite3

import apsw

extension = os.environ["EXTENSION"]
flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
assert sqlite3.sqlite_version != apsw.sqlite_lib_version(), "one library is no test"

one = sqlite3.connect(":memory:")
one.enable_load_extension(True)
one.load_extension(extension)
other = apsw.Connection(":memory:")
other.enable_load_extension(True)
other.load_extension(extension)

first = sqlite3.connect("file:first.db?vfs=littoral", uri=True)
second = apsw.Connection("file:second.db?vfs=littoral", flags=flags)
for conn in (first, second):
    conn.execute("PRAGMA journal_mode = WAL")
    conn.execute("CREATE TABLE t(x)")
    for n in range(50):
        conn.execute("INSERT INTO t VALUES (?)", (n,))
first.commit()
assert first.execute("PRAGMA littoral_checkpoint").fetchone()[0].startswith("1.")
assert second.pragma("littoral_checkpoint").startswith("1.")


def refused(attempt, errors, ask):
    try:
        attempt()
    except errors:
        said = ask()
        assert "another SQLite library of this process has it open" in said, said
        assert "open a database through one library only" in said, said
    else:
        raise AssertionError("two libraries on one database")


refused(
    lambda: apsw.Connection("file:first.db?vfs=littoral", flags=flags),
    apsw.CantOpenError,
    lambda: next(other.execute("SELECT littoral_last_error()"))[0],
)
refused(
    lambda: sqlite3.connect("file:second.db?vfs=littoral", uri=True),
    sqlite3.OperationalError,
    lambda: one.execute("SELECT littoral_last_error()").fetchone()[0],
)
# By another name it is the same file, and its locks are the same.
os.link("first.db", "alias.db")
refused(
    lambda: apsw.Connection("file:alias.db?vfs=littoral", flags=flags),
    apsw.CantOpenError,
    lambda: next(other.execute("SELECT littoral_last_error()"))[0],
)
os.unlink("alias.db")

# The refusals did no harm, and whoever lets go leaves it to the other.
first.execute("INSERT INTO t VALUES (-1)")
first.commit()
first.close()
taken = apsw.Connection("file:first.db?vfs=littoral", flags=flags)
assert next(taken.execute("SELECT count(*) FROM t"))[0] == 51
taken.execute("INSERT INTO t VALUES (-2)")
taken.pragma("littoral_checkpoint")
assert next(second.execute("SELECT count(*) FROM t"))[0] == 50
