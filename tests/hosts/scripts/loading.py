"""What happens around loading: what stays, what is refused, and what a refusal says."""
import _ctypes
import ctypes
import os
import shutil
import sqlite3

import apsw

extension = os.environ["EXTENSION"]


def load(path, entry=None):
    conn = sqlite3.connect(":memory:")
    conn.enable_load_extension(True)
    if entry is None:
        conn.load_extension(path)
    else:
        conn.execute("SELECT load_extension(?, ?)", (path, entry))
    return conn


# It stays: its connection is closed, it is loaded again, and whoever unloads it does not.
load(extension).close()
load(extension).close()
handle = ctypes.CDLL(extension)._handle
for _ in range(8):
    try:
        _ctypes.dlclose(handle)
    except OSError:
        break
conn = sqlite3.connect("file:app.db?vfs=littoral", uri=True)
conn.execute("CREATE TABLE t(x)")
conn.execute("PRAGMA littoral_checkpoint").fetchone()

# It is no default: a database that is opened as ever is as ever.
plain = sqlite3.connect("plain.db")
plain.execute("CREATE TABLE t(x)")
assert plain.execute("PRAGMA littoral_status").fetchall() == []
plain.close()

# A second copy would know nothing of what the first one has open.
shutil.copy(extension, "copy.so")
try:
    load("./copy.so", "sqlite3_littoral_init")
except sqlite3.OperationalError as error:
    assert "another copy of the extension is loaded in this process: load one of them" in str(error), error
else:
    raise AssertionError("two copies in one process")
# Not in another SQLite library either.
other = apsw.Connection(":memory:")
other.enable_load_extension(True)
try:
    other.load_extension("./copy.so", "sqlite3_littoral_init")
except apsw.ExtensionLoadingError as error:
    assert "another copy of the extension is loaded in this process: load one of them" in str(error), error
else:
    raise AssertionError("two copies in one process, in two libraries")
other.load_extension(extension)


def refused(uri, *words):
    try:
        sqlite3.connect(uri, uri=True)
    except sqlite3.OperationalError:
        (said,) = conn.execute("SELECT littoral_last_error()").fetchone()
        assert all(word in said for word in words), said
    else:
        raise AssertionError(f"{uri} was opened")


refused("file:new.db?vfs=littoral&remot=s3://bucket", '"remot"', 'did you mean "remote"?')
refused("file:new.db?vfs=littoral&compression=zip", "compression=", "zstd, lz4 or none")
refused("file:new.db?vfs=littoral&nonsense=1", '"nonsense"', "is no setting; there are remote, volume, store")
assert not os.path.exists("new.db")

# The other entry point, afterwards: now those that something names are ours too.
with open("littoral.toml", "w") as file:
    file.write('remote = "' + os.environ["REMOTE"] + '"\n')
before = sqlite3.connect("named.db")
load(extension, "sqlite3_littoraldefault_init").close()
named = sqlite3.connect("named.db")
named.execute("CREATE TABLE t(x)")
named.commit()
assert named.execute("PRAGMA littoral_checkpoint").fetchone()[0].startswith("1.")
# Open since before, and untouched by it.
assert before.execute("PRAGMA littoral_checkpoint").fetchall() == []
assert before.execute("SELECT count(*) FROM t").fetchone() == (0,)
