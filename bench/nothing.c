/* A module whose tables throw away every row that is inserted: what SQLite itself takes for handing one over. For tables.py. */

#include <sqlite3ext.h>
SQLITE_EXTENSION_INIT1

static int make(sqlite3 *database, void *data, int count, const char *const *words, sqlite3_vtab **table, char **why) {
  *table = sqlite3_malloc(sizeof **table);
  if (!*table) return SQLITE_NOMEM;
  **table = (sqlite3_vtab){0};
  return sqlite3_declare_vtab(database, "CREATE TABLE t(ts INTEGER, level TEXT, body TEXT, a HIDDEN, b HIDDEN, c HIDDEN, d HIDDEN)");
}

static int drop(sqlite3_vtab *table) {
  sqlite3_free(table);
  return SQLITE_OK;
}

static int plan(sqlite3_vtab *table, sqlite3_index_info *info) { return SQLITE_OK; }

static int open(sqlite3_vtab *table, sqlite3_vtab_cursor **cursor) {
  *cursor = sqlite3_malloc(sizeof **cursor);
  if (!*cursor) return SQLITE_NOMEM;
  **cursor = (sqlite3_vtab_cursor){0};
  return SQLITE_OK;
}

static int close(sqlite3_vtab_cursor *cursor) {
  sqlite3_free(cursor);
  return SQLITE_OK;
}

static int filter(sqlite3_vtab_cursor *cursor, int number, const char *text, int count, sqlite3_value **values) { return SQLITE_OK; }
static int next(sqlite3_vtab_cursor *cursor) { return SQLITE_OK; }
static int is_over(sqlite3_vtab_cursor *cursor) { return 1; }
static int column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int nth) { return SQLITE_OK; }
static int rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *row) { return SQLITE_OK; }

static int insert(sqlite3_vtab *table, int count, sqlite3_value **values, sqlite3_int64 *row) {
  *row = 1;
  return SQLITE_OK;
}

static int done(sqlite3_vtab *table) { return SQLITE_OK; }

static sqlite3_module module = {
    .iVersion = 1, .xCreate = make, .xConnect = make, .xBestIndex = plan, .xDisconnect = drop, .xDestroy = drop, .xOpen = open, .xClose = close,
    .xFilter = filter, .xNext = next, .xEof = is_over, .xColumn = column, .xRowid = rowid, .xUpdate = insert, .xBegin = done, .xSync = done,
    .xCommit = done, .xRollback = done};

int sqlite3_nothing_init(sqlite3 *database, char **why, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api);
  return sqlite3_create_module(database, "thrown_away", &module, 0);
}
