.bail on
.load ${EXTENSION} sqlite3_littoral_init
.open 'file:app.db?vfs=littoral&remote=${REMOTE}'
PRAGMA journal_mode = WAL;
CREATE TABLE t(n INTEGER, text TEXT);
WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000) INSERT INTO t SELECT n, 'text ' || n FROM c;
PRAGMA littoral_checkpoint;
SELECT littoral_status() LIKE 'safe %yes: %';
SELECT count(*) > 0 FROM littoral_checkpoints;
SELECT count(*) > 0 FROM littoral_chunks;
