/* A module whose tables throw away every row that is inserted: what SQLite itself takes for handing one over. With a file's name, each commit
 * writes as many bytes to that as a log takes for the rows, and syncs it: what syncing them takes, whoever does it. For tables.py. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <sqlite3ext.h>
#include <string.h>
#include <unistd.h>
SQLITE_EXTENSION_INIT1

/* What a log takes for a row besides its number and its text: littoral_log_stats says 152 bytes a row of the bench's. */
#define ROW_BYTES 40
#define FILE_BYTES (1L << 30)

typedef struct {
  sqlite3_vtab base;
  int file;
  off_t at;
  size_t bytes;
} table_t;

static char written[1 << 20];

static int make(sqlite3 *database, void *data, int count, const char *const *words, sqlite3_vtab **table, char **why) {
  table_t *made = sqlite3_malloc(sizeof *made);
  if (!made) return SQLITE_NOMEM;
  *made = (table_t){.file = -1};
  if (count > 3) {
    made->file = open(words[3], O_RDWR | O_CREAT, 0644);
    if (made->file < 0 || posix_fallocate(made->file, 0, FILE_BYTES) != 0) return SQLITE_CANTOPEN;
    memset(written, 'r', sizeof written);
  }
  *table = &made->base;
  return sqlite3_declare_vtab(database, "CREATE TABLE t(ts INTEGER, level TEXT, body TEXT, a HIDDEN, b HIDDEN, c HIDDEN, d HIDDEN)");
}

static int drop(sqlite3_vtab *table) {
  if (((table_t *)table)->file >= 0) close(((table_t *)table)->file);
  sqlite3_free(table);
  return SQLITE_OK;
}

static int plan(sqlite3_vtab *table, sqlite3_index_info *info) { return SQLITE_OK; }

static int begin_reading(sqlite3_vtab *table, sqlite3_vtab_cursor **cursor) {
  *cursor = sqlite3_malloc(sizeof **cursor);
  if (!*cursor) return SQLITE_NOMEM;
  **cursor = (sqlite3_vtab_cursor){0};
  return SQLITE_OK;
}

static int end_reading(sqlite3_vtab_cursor *cursor) {
  sqlite3_free(cursor);
  return SQLITE_OK;
}

static int filter(sqlite3_vtab_cursor *cursor, int number, const char *text, int count, sqlite3_value **values) { return SQLITE_OK; }
static int next(sqlite3_vtab_cursor *cursor) { return SQLITE_OK; }
static int is_over(sqlite3_vtab_cursor *cursor) { return 1; }
static int column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int nth) { return SQLITE_OK; }
static int rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *row) { return SQLITE_OK; }

static int insert(sqlite3_vtab *table, int count, sqlite3_value **values, sqlite3_int64 *row) {
  table_t *made = (table_t *)table;
  if (made->file >= 0) {
    made->bytes += ROW_BYTES + 8;
    for (int nth = 3; nth < 5; nth++) made->bytes += sqlite3_value_bytes(values[nth]);
  }
  *row = 1;
  return SQLITE_OK;
}

static int sync_rows(sqlite3_vtab *table) {
  table_t *made = (table_t *)table;
  if (made->file < 0) return SQLITE_OK;
  while (made->bytes > 0) {
    ssize_t done = pwrite(made->file, written, made->bytes < sizeof written ? made->bytes : sizeof written, made->at);
    if (done <= 0 || made->at > FILE_BYTES) return SQLITE_IOERR;
    made->at += done;
    made->bytes -= done;
  }
  return fdatasync(made->file) == 0 ? SQLITE_OK : SQLITE_IOERR;
}

static int done(sqlite3_vtab *table) { return SQLITE_OK; }

static sqlite3_module module = {
    .iVersion = 1, .xCreate = make, .xConnect = make, .xBestIndex = plan, .xDisconnect = drop, .xDestroy = drop, .xOpen = begin_reading,
    .xClose = end_reading, .xFilter = filter, .xNext = next, .xEof = is_over, .xColumn = column, .xRowid = rowid, .xUpdate = insert, .xBegin = done, .xSync = sync_rows,
    .xCommit = done, .xRollback = done};

int sqlite3_nothing_init(sqlite3 *database, char **why, const sqlite3_api_routines *api) {
  SQLITE_EXTENSION_INIT2(api);
  return sqlite3_create_module(database, "thrown_away", &module, 0);
}
