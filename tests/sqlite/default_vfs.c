/*
** Linked into SQLite's testfixture, called at the end of each
** sqlite3_initialize(), so in the processes that tests start too.
**
** Where SUITE_EXTENSION names the extension, it is loaded as any program
** loads it, by the entry point that makes its VFS the default. Where it is
** not set, nothing changes, so that one program gives both runs.
** SUITE_SEEN names a file to which each process, when it ends, adds a line:
** the name of its default VFS, and how many databases it opened through it.
*/
#include "sqlite3.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static sqlite3_vfs *the_default;
static int (*inner_open)(sqlite3_vfs*, const char*, sqlite3_file*, int, int*);
static int databases;

static void refuse(const char *what, const char *why){
  fprintf(stderr, "default_vfs.c: %s: %s\n", what, why ? why : "no reason given");
  _exit(113);
}

static int counted_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out){
  if( flags & SQLITE_OPEN_MAIN_DB ) __sync_fetch_and_add(&databases, 1);
  return inner_open(vfs, name, file, flags, out);
}

static void tell(void){
  const char *seen = getenv("SUITE_SEEN");
  char line[200];
  int length, file;
  if( seen==0 ) return;
  length = snprintf(line, sizeof line, "%s %d\n", the_default->zName, databases);
  file = open(seen, O_WRONLY|O_APPEND|O_CREAT, 0644);
  if( file<0 || write(file, line, length)!=length ) refuse("SUITE_SEEN", seen);
  close(file);
}

static void load(const char *extension){
  sqlite3 *db = 0;
  char *message = 0;
  if( sqlite3_open(":memory:", &db) ) refuse("a database in memory", sqlite3_errmsg(db));
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, (int*)0);
  if( sqlite3_load_extension(db, extension, "sqlite3_littoraldefault_init", &message) ) refuse(extension, message);
  sqlite3_close(db);
}

int default_vfs(const char *unused){
  const char *extension = getenv("SUITE_EXTENSION");
  const char *wanted = extension ? "littoral" : "unix";
  static int began = 0;
  (void)unused;
  if( !began ){
    began = 1;
    if( extension ) load(extension);
    the_default = sqlite3_vfs_find(0);
    if( strcmp(the_default->zName, wanted) ) refuse("the default VFS is not the wanted one", the_default->zName);
    inner_open = the_default->xOpen;
    the_default->xOpen = counted_open;
    atexit(tell);
  }else{
    /* After a shutdown, SQLite has made its own VFS the default again. */
    sqlite3_vfs_register(the_default, 1);
  }
  return SQLITE_OK;
}
