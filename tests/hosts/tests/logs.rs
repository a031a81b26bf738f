//! Logs as tables, in the program that everybody has.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use littoral_hosts::{Place, room};
use std::fs;
use std::process::Stdio;

/// What the stock program says when it reads these lines, with the extension loaded and a database opened as `open` says.
fn told(place: &Place, open: &str, lines: &str) -> (String, String) {
    use std::io::Write;
    let mut command = place.host("sqlite3");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let text =
        format!(".load {} sqlite3_littoral_init\n.open {open}\n{lines}", littoral_hosts::built().extension.display());
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&done.stdout), text(&done.stderr))
}

#[test]
fn p11_a_logs_table_works_in_the_stock_program_whichever_vfs_the_database_is_opened_with() {
    let script = fs::read_to_string(room().join("scripts/logs.sql")).unwrap();
    let place = Place::new();
    for open in ["plain.db", &format!("file:ours.db?vfs=littoral&remote={}", place.remote())] {
        let (out, err) = told(&place, open, &script);
        let expected = "4|6|integer||NULL|worker|1|1\n3|3|integer|info|X'00FF'|||1\n2|2|integer|warn|'slow'|||1\n\
                        1|1|integer|info|'started'|||1\n2\nevents|4|4\n0\n";
        assert_eq!((out.as_str(), err.as_str()), (expected, ""), "{open}");
        // Another process goes on where this one ended.
        let (out, err) =
            told(&place, open, "INSERT INTO events VALUES (7, 'info', 'on'); SELECT max(lsn), count(*) FROM events;\n");
        assert_eq!((out.as_str(), err.as_str()), ("5|5\n", ""), "{open}");
        let (_, err) = told(&place, open, "DELETE FROM events;\n");
        assert!(err.contains("littoral_log_truncate"), "{err}");
    }
}
