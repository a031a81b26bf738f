/* cc example.c $(pkg-config --cflags --libs littoral) -o example && ./example "file:app.db?vfs=littoral&remote=s3://bucket/prefix" hello
 *
 * Adds a note where one is given, says up to which position the object store has everything, and shows all notes. */
#include <littoral.h>
#include <stdio.h>

static int fail(sqlite3 *db) {
  char why[1024];
  littoral_take_error(why, sizeof why);
  fprintf(stderr, "%s%s%s\n", sqlite3_errmsg(db), why[0] ? ": " : "", why);
  sqlite3_close(db);
  return 1;
}

static int show(void *label, int columns, char **values, char **names) {
  (void)columns, (void)names;
  printf("%s%s\n", (const char *)label, values[0] ? values[0] : "nothing");
  return 0;
}

int main(int count, char **words) {
  sqlite3 *db = 0;
  if (count < 2) {
    fprintf(stderr, "usage: %s file:app.db?vfs=littoral [NOTE]\n", words[0]);
    return 2;
  }
  if (littoral_register(0) != SQLITE_OK) return 1;
  if (sqlite3_open_v2(words[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI, 0) != SQLITE_OK) return fail(db);
  if (count > 2) {
    char *insert = sqlite3_mprintf("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS note(text); INSERT INTO note VALUES (%Q)", words[2]);
    int answer = sqlite3_exec(db, insert, 0, 0, 0);
    sqlite3_free(insert);
    if (answer != SQLITE_OK) return fail(db);
    if (sqlite3_exec(db, "PRAGMA littoral_sync", show, "safe up to ", 0) != SQLITE_OK) return fail(db);
  }
  if (sqlite3_exec(db, "SELECT text FROM note", show, "", 0) != SQLITE_OK) return fail(db);
  return sqlite3_close(db) == SQLITE_OK ? 0 : 1;
}
