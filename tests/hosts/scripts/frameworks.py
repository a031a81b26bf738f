"""The wheel under what stands over SQLite in Python, by the settings that its page names: argv[1] is which, argv[2] what to do."""
import os
import pathlib
import sys

import littoral

remote, here = os.environ["REMOTE"], pathlib.Path.cwd()


def sqlalchemy(write):
    from sqlalchemy import create_engine, text

    engine = create_engine("sqlite:///app.db", creator=lambda: littoral.connect("app.db", remote=remote, check_same_thread=False))
    with engine.begin() as conn:
        if write:
            conn.execute(text("CREATE TABLE note(text)"))
            conn.execute(text("INSERT INTO note VALUES ('hello')"))
        rows = [row[0] for row in conn.execute(text("SELECT text FROM note"))]
    if write:
        with engine.connect() as conn:
            conn.execute(text("PRAGMA littoral_sync")).fetchall()
    engine.dispose()
    return rows


def django(write):
    import django
    from django.conf import settings
    from django.db import connection, models

    settings.configure(
        INSTALLED_APPS=[],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": littoral.uri(here / "app.db", remote=remote)}},
    )
    django.setup()

    class Note(models.Model):
        text = models.TextField()

        class Meta:
            app_label = "notes"

    if write:
        with connection.schema_editor() as editor:
            editor.create_model(Note)
        Note.objects.create(text="hello")
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA littoral_sync").fetchall()
    rows = list(Note.objects.values_list("text", flat=True))
    connection.close()
    return rows


def apsw(write):
    import apsw

    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_URI
    conn = apsw.Connection(littoral.uri("app.db", module=apsw, remote=remote), flags=flags)
    if write:
        conn.execute("CREATE TABLE note(text); INSERT INTO note VALUES ('hello')")
        conn.pragma("littoral_sync")
    rows = [row[0] for row in conn.execute("SELECT text FROM note")]
    conn.close()
    try:
        apsw.Connection(littoral.uri("app.db", module=apsw, remoet=remote), flags=flags)
        raise AssertionError("it was opened")
    except apsw.CantOpenError:
        assert 'did you mean "remote"' in littoral.last_error(apsw), littoral.last_error(apsw)
    return rows


def pysqlite3(write):
    import pysqlite3.dbapi2

    conn = littoral.connect("app.db", remote=remote, module=pysqlite3.dbapi2)
    assert isinstance(conn, pysqlite3.dbapi2.Connection)
    with conn:
        if write:
            conn.execute("CREATE TABLE note(text)")
            conn.execute("INSERT INTO note VALUES ('hello')")
    if write:
        conn.execute("PRAGMA littoral_sync").fetchall()
    rows = [row[0] for row in conn.execute("SELECT text FROM note")]
    conn.close()
    try:
        littoral.connect("app.db", remoet=remote, module=pysqlite3.dbapi2)
        raise AssertionError("it was opened")
    except pysqlite3.dbapi2.OperationalError as error:
        assert isinstance(error, littoral.Error) and 'did you mean "remote"' in error.reason, error
    return rows


print(*{"sqlalchemy": sqlalchemy, "django": django, "apsw": apsw, "pysqlite3": pysqlite3}[sys.argv[1]](sys.argv[2] == "write"))
