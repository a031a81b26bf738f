-- A log as a table, in the stock program: what is loaded is the extension, what is opened is any database.
.bail on
.mode list
CREATE VIRTUAL TABLE events USING littoral_log(ts INTEGER, level TEXT, body TEXT);
CREATE TABLE note(text);
BEGIN;
INSERT INTO events VALUES (1, 'info', 'started'), ('2', 'warn', 'slow'), (3.0, 'info', x'00ff');
INSERT INTO note VALUES ('with them');
SAVEPOINT s;
INSERT INTO events VALUES (4, 'info', 'never');
ROLLBACK TO s;
COMMIT;
BEGIN;
INSERT INTO events VALUES (5, 'info', 'never');
ROLLBACK;
INSERT INTO events(ts, session, serial) VALUES (6, 'worker', 1);
SELECT lsn, ts, typeof(ts), level, quote(body), session, serial, appended_ms > 0 FROM events ORDER BY lsn DESC;
SELECT count(*) FROM events JOIN note WHERE level = 'info' AND ts BETWEEN 1 AND 3;
SELECT name, rows, last FROM littoral_log_stats;
SELECT littoral_log_cursor('events', 'c');
