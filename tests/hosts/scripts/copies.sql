.bail on
.load ${EXTENSION} sqlite3_littoral_init
.open 'file:app.db?vfs=littoral&remote=${REMOTE}'
CREATE TABLE t(n INTEGER, text TEXT);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) INSERT INTO t SELECT n, 'text ' || n FROM c;
.backup backup.db
VACUUM INTO 'vacuumed.db';
DROP TABLE t;
PRAGMA littoral_checkpoint;
.restore backup.db
PRAGMA littoral_checkpoint;
