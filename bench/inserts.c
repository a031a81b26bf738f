/* Rows one by one through a prepared statement, as a program in C inserts them: inserts FILE ROWS BATCH BYTES. Prints seconds, and seconds
 * of a processor. */

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void must(sqlite3 *database, int code) {
  if (code != SQLITE_OK && code != SQLITE_DONE && code != SQLITE_ROW) {
    fprintf(stderr, "inserts: %s\n", sqlite3_errmsg(database));
    exit(1);
  }
}

static double now(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
  if (count != 5) return 2;
  long rows = atol(words[2]), batch = atol(words[3]);
  int bytes = atoi(words[4]);
  char *body = malloc(bytes);
  memset(body, 'r', bytes);
  sqlite3 *database;
  sqlite3_stmt *insert, *begin, *commit;
  must(NULL, sqlite3_open(words[1], &database));
  must(database, sqlite3_exec(database, "PRAGMA journal_mode = wal; PRAGMA synchronous = normal; CREATE TABLE event(id INTEGER PRIMARY KEY, body BLOB)", NULL, NULL, NULL));
  must(database, sqlite3_prepare_v2(database, "INSERT INTO event(body) VALUES (?)", -1, &insert, NULL));
  must(database, sqlite3_prepare_v2(database, "BEGIN", -1, &begin, NULL));
  must(database, sqlite3_prepare_v2(database, "COMMIT", -1, &commit, NULL));
  double begun = now(CLOCK_MONOTONIC), worked = now(CLOCK_PROCESS_CPUTIME_ID);
  for (long row = 0; row < rows; row++) {
    if (row % batch == 0) {
      must(database, sqlite3_step(begin));
      must(database, sqlite3_reset(begin));
    }
    must(database, sqlite3_bind_blob(insert, 1, body, bytes, SQLITE_STATIC));
    must(database, sqlite3_step(insert));
    must(database, sqlite3_reset(insert));
    if (row % batch == batch - 1) {
      must(database, sqlite3_step(commit));
      must(database, sqlite3_reset(commit));
    }
  }
  printf("%.9f %.9f\n", now(CLOCK_MONOTONIC) - begun, now(CLOCK_PROCESS_CPUTIME_ID) - worked);
  sqlite3_finalize(insert);
  sqlite3_finalize(begin);
  sqlite3_finalize(commit);
  sqlite3_close(database);
  return 0;
}
