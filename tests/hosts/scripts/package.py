"""A machine that has Python and the wheel, and nothing else of ours: write, read elsewhere, be told why."""
import os
import sqlite3
import sys
import types

import littoral

remote = os.environ["REMOTE"]


def write():
    conn = littoral.connect("app.db", remote=remote)
    assert isinstance(conn, sqlite3.Connection)
    conn.execute("PRAGMA journal_mode = WAL")
    with conn:
        conn.execute("CREATE TABLE t(n INTEGER, text TEXT)")
        conn.executemany("INSERT INTO t VALUES (?, ?)", ((n, f"text {n}") for n in range(1, 1001)))
    print(conn.execute("PRAGMA littoral_sync").fetchone()[0])
    conn.close()


def read():
    assert os.listdir() == [], os.listdir()
    conn = littoral.connect("app.db", remote=remote, check_same_thread=False)
    rows = list(conn.execute("SELECT count(*), sum(n), sum(length(text)), min(text), max(text) FROM t"))
    print("|".join(str(value) for value in rows[0]))
    # The machine that is lost was never told to stop: who goes on here says so, by the epoch that the refusal names.
    try:
        conn.execute("INSERT INTO t VALUES (1001, 'elsewhere')")
        raise AssertionError("two machines write")
    except littoral.Error as error:
        assert "takeover=1" in error.reason, error
    conn.close()
    conn = littoral.connect("app.db", remote=remote, takeover=1)
    with conn:
        conn.execute("INSERT INTO t VALUES (1001, 'elsewhere')")
    print(conn.execute("PRAGMA littoral_sync").fetchone()[0])
    past = littoral.connect("app.db", remote=remote, at=sys.argv[2])
    print(past.execute("SELECT count(*) FROM t").fetchone()[0])
    conn.close()


def raised(kind, ask):
    try:
        ask()
    except kind as error:
        assert type(error) is not sqlite3.OperationalError, repr(error)
        return error
    raise AssertionError(f"{kind} was not raised")


def told():
    # At the opening.
    error = raised(littoral.Error, lambda: littoral.connect("app.db", remoet=remote))
    assert str(error).startswith("unable to open database file: ") and 'did you mean "remote"?' in error.reason, error
    assert getattr(error, "sqlite_errorcode", 14) == 14, error.sqlite_errorcode
    assert os.listdir() == [], os.listdir()
    # Not twice: the reason of one thing is not that of the next.
    try:
        littoral.connect("no-folder/app.db", remote=remote)
        raise AssertionError("it was opened")
    except sqlite3.OperationalError as error:
        assert "unable to open" in str(error) and "remoet" not in str(error), error

    # While it is used, by a cursor's errors and a connection's: the past is only read, and says so.
    conn = littoral.connect("app.db", remote=remote)
    conn.execute("PRAGMA journal_mode = WAL")
    with conn:
        conn.execute("CREATE TABLE t(n)")
    position = conn.execute("PRAGMA littoral_sync").fetchone()[0]
    past = littoral.connect("app.db", remote=remote, at=position)
    for ask in [
        lambda: past.execute("INSERT INTO t VALUES (1)"),
        lambda: past.cursor().executemany("INSERT INTO t VALUES (?)", [(1,)]),
        lambda: past.executescript("INSERT INTO t VALUES (1)"),
    ]:
        error = raised(littoral.Error, ask)
        assert str(error).startswith("attempt to write a readonly database: ") and "past" in error.reason, error
    # What is no concern of ours is what it always was.
    for sql, kind in [("SELECT * FROM nothing", sqlite3.OperationalError), ("INSERT INTO t VALUES (1, 2)", sqlite3.OperationalError)]:
        try:
            conn.execute(sql)
        except kind as error:
            assert type(error) is kind, repr(error)
    # Our own words come through as they are.
    try:
        conn.execute("PRAGMA littoral_chekpoint").fetchall()
    except sqlite3.OperationalError as error:
        assert "did you mean littoral_checkpoint" in str(error), error

    # A SQLite that loads nothing.
    deaf = types.ModuleType("deaf")
    deaf.Connection = type("Connection", (), {"__init__": lambda self, name: None, "close": lambda self: None, "__module__": "deaf"})
    error = raised(littoral.NoExtensions, lambda: littoral.connect("other.db", module=deaf))
    for word in ["deaf of this Python", "Debian", "pyenv", "pysqlite3-binary"]:
        assert word in str(error), error
    for path in ["", ":memory:", "file:app.db?vfs=littoral"]:
        assert isinstance(raised(ValueError, lambda: littoral.connect(path)), ValueError)
    assert not os.path.exists("other.db")
    print("told")


{"write": write, "read": read, "told": told}[sys.argv[1]]()
