/* SQLite databases that live in an object store: what a program in C calls, or in whatever else calls C.
 *
 * Link with -llittoral -lsqlite3 (`pkg-config --cflags --libs littoral`), or with liblittoral.a, the program's own SQLite and what
 * `pkg-config --static --libs littoral` lists; say littoral_register() once, and open databases as
 * file:app.db?vfs=littoral&remote=s3://bucket/prefix, with SQLITE_OPEN_URI among the flags.
 *
 * A program that loads extensions at run time needs none of this: sqlite3_load_extension(db, "liblittoral", NULL, &message).
 */
#ifndef LITTORAL_H
#define LITTORAL_H

#include <sqlite3.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sqlite3_api_routines;

/* The extension's entry points, for SQLite to call: the VFS "littoral"; and the same as the VFS of every database that names none. */
int sqlite3_littoral_init(sqlite3 *db, char **message, const struct sqlite3_api_routines *routines);
int sqlite3_littoraldefault_init(sqlite3 *db, char **message, const struct sqlite3_api_routines *routines);

/* Makes the VFS "littoral", its functions and its tables known to this program's SQLite: for databases that are opened from now on.
 * `is_default` other than 0: also for those that name no VFS. Answers SQLite's code; calling it again does no harm. The program's SQLite calls
 * the entry point with its own functions: it must be built without SQLITE_OMIT_LOAD_EXTENSION. */
static inline int littoral_register(int is_default) {
  sqlite3 *db = 0;
  void (*entry)(void) = (void (*)(void))(is_default ? sqlite3_littoraldefault_init : sqlite3_littoral_init);
  int answer = sqlite3_auto_extension(entry);
  if (answer == SQLITE_OK) answer = sqlite3_open(":memory:", &db);
  sqlite3_close(db);
  /* It has registered what is called for each connection from here on, and is not needed again. */
  sqlite3_cancel_auto_extension(entry);
  return answer;
}

/* Why Littoral refused something on this thread since it was asked last, where SQLite answers with a code alone (SQLITE_CANTOPEN, SQLITE_IOERR,
 * SQLITE_READONLY). Writes a string that ends with a zero, empty where nothing was refused; answers SQLite's code. */
static inline int littoral_take_error(char *why, int size) {
  sqlite3 *db = 0;
  sqlite3_stmt *asked = 0;
  int answer = sqlite3_open(":memory:", &db);
  if (answer == SQLITE_OK) answer = sqlite3_prepare_v2(db, "SELECT ifnull(littoral_take_error(), '')", -1, &asked, 0);
  if (size > 0) why[0] = 0;
  if (answer == SQLITE_OK && sqlite3_step(asked) == SQLITE_ROW && size > 0)
    snprintf(why, (size_t)size, "%s", (const char *)sqlite3_column_text(asked, 0));
  sqlite3_finalize(asked);
  sqlite3_close(db);
  return answer;
}

#ifdef __cplusplus
}
#endif
#endif
