"""SQLite databases that live in an object store.

    import littoral

    conn = littoral.connect("app.db", remote="s3://bucket/prefix")

`conn` is a connection of Python's own `sqlite3` to an ordinary database on local disk. What is committed travels to the object
store by itself. Where `app.db` is not here, it is opened from there, and pages come as they are read.

`load` gives the same to a connection of yours (`sqlite3` or `apsw`), `uri` to whatever opens a database by its URI (Django, SQLAlchemy),
and `loadable_path` is the extension itself.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import pathlib
import sqlite3
import threading
import types
import urllib.parse
from typing import Any, NamedTuple, Optional, Type, Union

__all__ = ["Error", "NoExtensions", "connect", "last_error", "load", "loadable_path", "uri"]

try:
    __version__ = importlib.metadata.version("littoral")
except importlib.metadata.PackageNotFoundError:  # The folder is on somebody's path, and not installed.
    __version__ = "unknown"

Path = Union[str, "os.PathLike[str]"]
Setting = Union[str, int, bool, "os.PathLike[str]"]

# What SQLite says where its VFS lets no reason through.
_CODES_ALONE = (
    "unable to open database file",
    "disk I/O error",
    "attempt to write a readonly database",
    "SQL logic error",
    "database or disk is full",
    "database disk image is malformed",
    "file is not a database",
)


class Error(sqlite3.OperationalError):
    """Something that SQLite tells by a code alone, with the cause and the way out.

    `reason` is Littoral's sentence. Where Python is new enough, `sqlite_errorcode` and `sqlite_errorname` are SQLite's.
    """

    reason: str

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class NoExtensions(Error):
    """This SQLite cannot load extensions. The message names the ways out."""


def loadable_path() -> str:
    """The extension, for whatever loads one: `.load`, `load_extension`, `sqlite3_load_extension`."""
    path = pathlib.Path(__file__).resolve().parent / "liblittoral.so"
    if not path.is_file():
        raise Error(f"{path} is missing: install the package `littoral` from its wheel, which brings it along")
    return str(path)


def load(conn: Any, *, default: bool = False) -> None:
    """Loads the extension through a connection of `sqlite3`, `apsw`, or of whatever looks like one of them.

    The VFS `littoral`, its functions and its tables are there in every connection that the same SQLite opens from then on. With
    `default`, ours is the VFS of every database that names none; only those are ours that a `remote` in the environment or in a
    `littoral.toml` beside them names.
    """
    if not hasattr(conn, "enable_load_extension"):
        raise NoExtensions(
            f"{type(conn).__module__} of this Python was built without loadable extensions. Use the Python of Debian, Ubuntu, Fedora, "
            "Homebrew or uv; build pyenv's with PYTHON_CONFIGURE_OPTS=--enable-loadable-sqlite-extensions; or install pysqlite3-binary "
            "and say littoral.connect(..., module=pysqlite3.dbapi2)"
        )
    entry = "sqlite3_littoraldefault_init" if default else "sqlite3_littoral_init"
    path = loadable_path()
    conn.enable_load_extension(True)
    try:
        # The method takes an entry point from Python 3.12 on, the function everywhere.
        conn.cursor().execute("SELECT load_extension(?, ?)", (path, entry)).fetchall()
    finally:
        conn.enable_load_extension(False)


def uri(path: Path, *, module: types.ModuleType = sqlite3, **settings: Optional[Setting]) -> str:
    """A database's name for whatever takes URIs, settings and all; loads the extension into this process, once.

        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": littoral.uri("app.db", remote="s3://bucket/prefix")}}

    Settings are the parameters of docs/cli.md; `mode` and `cache` are SQLite's. `True` and `False` are `on` and `off`, and `None` is as if
    it were not there. A word that is no setting is refused when the database is opened.

    `module` is whose SQLite will open it: `sqlite3`, `pysqlite3.dbapi2`, `apsw`.
    """
    name = _spelled(path, settings)
    _load_once(module)
    return name


def connect(
    path: Path,
    *,
    remote: Optional[str] = None,
    volume: Optional[str] = None,
    module: types.ModuleType = sqlite3,
    timeout: float = 5.0,
    detect_types: int = 0,
    isolation_level: Optional[str] = "DEFERRED",
    check_same_thread: bool = True,
    cached_statements: int = 128,
    **settings: Optional[Setting],
) -> sqlite3.Connection:
    """Opens a database, wherever it is, and gives a connection of `sqlite3`.

    `remote` names the object store, `volume` the database there (the file's name, where nothing is said). Further settings are
    those of `uri`: `durability="remote"`, `follow=True, mode="ro"`, `at="-5m"`, `quota="500MB"`. The rest is `sqlite3.connect`'s.

    `module` is `sqlite3` or something that is like it, as `pysqlite3.dbapi2` is. What SQLite tells by a code alone is raised as `Error`,
    with the reason.
    """
    name = uri(path, module=module, remote=remote, volume=volume, **settings)
    _ask(module, "littoral_take_error")  # What was not asked for before is the reason of something else.
    try:
        return module.connect(  # type: ignore[no-any-return]
            name,
            uri=True,
            timeout=timeout,
            detect_types=detect_types,
            isolation_level=isolation_level,
            check_same_thread=check_same_thread,
            cached_statements=cached_statements,
            factory=_kin(module).connection,
        )
    except module.OperationalError as error:
        raise _told(error, module, None) from None


def last_error(module: types.ModuleType = sqlite3) -> Optional[str]:
    """Why Littoral refused something last on this thread, else in this process; `None` where it has refused nothing."""
    _load_once(module)
    return _ask(module, "littoral_last_error")


def _spelled(path: Path, settings: "dict[str, Optional[Setting]]") -> str:
    text = os.fspath(path)
    if not text or text.startswith(("file:", ":")):
        raise ValueError(f"{text!r} is no path of a database: say the path, and settings by their names")
    if "\0" in text:
        raise ValueError("a path cannot hold a zero")
    # Two slashes would name a host: a path that begins at the root gets an empty one.
    name = "file:" + ("//" if text.startswith("/") else "") + urllib.parse.quote(os.fsencode(text)) + "?vfs=littoral"
    for key, value in settings.items():
        if value is None:
            continue
        if isinstance(value, bool):
            value = "on" if value else "off"
        shown = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
        name += f"&{urllib.parse.quote(key)}={urllib.parse.quote(os.fsencode(shown), safe='/:')}"
    return name


_loading = threading.Lock()
_loaded: "set[str]" = set()


def _load_once(module: types.ModuleType) -> None:
    with _loading:
        if module.__name__ not in _loaded:
            conn = module.Connection(":memory:")
            try:
                load(conn)
            finally:
                conn.close()
            _loaded.add(module.__name__)


def _ask(module: types.ModuleType, function: str, conn: Any = None) -> Optional[str]:
    """Asks on the connection, or on one that is made for it; on this thread, whose errors are meant."""
    asked = module.Connection(":memory:") if conn is None else conn
    try:
        # Past our own cursor, whose errors would be asked about in turn.
        (said,) = (asked.cursor() if conn is None else module.Cursor(conn)).execute(f"SELECT {function}()").fetchone()
    finally:
        if conn is None:
            asked.close()
    return said  # type: ignore[no-any-return]


def _told(error: Any, module: types.ModuleType, conn: Any) -> Any:
    """The error, or one of the same kind that says why."""
    message = str(error)
    if message not in _CODES_ALONE:
        return error
    try:
        reason = _ask(module, "littoral_take_error", conn)
    except module.Error:  # The connection answers nothing any more.
        reason = _ask(module, "littoral_take_error")
    if reason is None:
        return error
    told = _kin(module).error(f"{message}: {reason}", reason)
    for name in ("sqlite_errorcode", "sqlite_errorname"):
        if hasattr(error, name):
            setattr(told, name, getattr(error, name))
    return told


class _Kin(NamedTuple):
    """What is made once for each module that is like `sqlite3`."""

    connection: Type[Any]
    error: Type[Error]


@functools.lru_cache(maxsize=None)
def _kin(module: Any) -> _Kin:
    """The module's connection and cursor, whose errors say why; and our error, as one of the module's."""

    def telling(plain: Any) -> Any:
        @functools.wraps(plain)
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return plain(self, *args, **kwargs)
            except module.DatabaseError as error:
                told = _told(error, module, getattr(self, "connection", self))
                if told is error:
                    raise
                raise told from None

        return call

    class Cursor(module.Cursor):  # type: ignore[misc]
        __doc__ = module.Cursor.__doc__

    for name in ("execute", "executemany", "executescript", "fetchone", "fetchmany", "fetchall", "__next__"):
        setattr(Cursor, name, telling(getattr(module.Cursor, name)))

    class Connection(module.Connection):  # type: ignore[misc]
        __doc__ = module.Connection.__doc__

        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

        def execute(self, *args: Any) -> Any:
            return self.cursor().execute(*args)

        def executemany(self, *args: Any) -> Any:
            return self.cursor().executemany(*args)

        def executescript(self, *args: Any) -> Any:
            return self.cursor().executescript(*args)

    for name in ("commit", "rollback", "backup", "__exit__"):
        setattr(Connection, name, telling(getattr(module.Connection, name)))

    error = Error if module is sqlite3 else type("Error", (Error, module.OperationalError), {"__doc__": Error.__doc__})
    return _Kin(Connection, error)
