/* Registers us twice, and an extension of its own behind us: that one is called for every connection, and so are we. */
#include <littoral.h>

static int called;

static int own(sqlite3 *db, char **message, const struct sqlite3_api_routines *routines) {
  (void)db, (void)message, (void)routines;
  called++;
  return SQLITE_OK;
}

static int show(void *nothing, int columns, char **values, char **names) {
  (void)nothing, (void)columns, (void)names;
  printf("%s\n", values[0]);
  return 0;
}

static int wrong(const char *what, int answer, sqlite3 *db) {
  fprintf(stderr, "%s: %d %s\n", what, answer, db ? sqlite3_errmsg(db) : "");
  return 1;
}

int main(void) {
  sqlite3 *db = 0;
  int answer = littoral_register(0);
  if (answer == SQLITE_OK) answer = littoral_register(0);
  if (answer != SQLITE_OK) return wrong("littoral_register", answer, 0);
  answer = sqlite3_auto_extension((void (*)(void))own);
  if (answer != SQLITE_OK) return wrong("sqlite3_auto_extension", answer, 0);
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;
#ifdef SQLITE_OPEN_EXRESCODE
  flags |= SQLITE_OPEN_EXRESCODE;
#endif
  answer = sqlite3_open_v2(":memory:", &db, flags, 0);
  if (answer != SQLITE_OK || called != 1) return wrong("the first connection", answer, db);
  sqlite3_close(db);
  /* Whoever names the entry point himself: from the second connection on, it is one of many. */
  sqlite3_auto_extension((void (*)(void))sqlite3_littoral_init);
  answer = sqlite3_open_v2("file:app.db?vfs=littoral", &db, flags, 0);
  if (answer != SQLITE_OK || called != 2) return wrong("the second connection", answer, db);
  answer = sqlite3_exec(db, "CREATE TABLE t(a); SELECT littoral_version()", show, 0, 0);
  if (answer != SQLITE_OK) return wrong("SQL", answer, db);
  return sqlite3_close(db);
}
