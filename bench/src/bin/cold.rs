//! Opens a database on a machine that has nothing of it, runs statements, and says what each of them cost: for `tests/cold.rs`.
//!
//!     cold FILE REMOTE ENDPOINT|- VOLUME SQL...
//!
//! The first line is the opening's cost, together with the pin that is put behind the reader's back; then one line a statement.

#![allow(clippy::unwrap_used, reason = "a measurement stops at the first surprise")]

use std::path::PathBuf;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let file = PathBuf::from(arguments.next().unwrap());
    let (remote, endpoint, volume) = (arguments.next().unwrap(), arguments.next().unwrap(), arguments.next().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut builder = littoral::Builder::new(&file).remote(remote).volume(volume);
        if endpoint != "-" {
            builder = builder.endpoint(endpoint);
        }
        let connection = builder.open().await.unwrap();
        // Nobody waits for the pin; it is not to be counted as if somebody did.
        std::thread::sleep(std::time::Duration::from_millis(700));
        let told = |count: u64| {
            let (totals, depth) = littoral_vfs::cost(&file.canonicalize().unwrap(), true).unwrap();
            let all = totals.all();
            let kinds: Vec<String> = totals.by_op.iter().map(|(op, one)| format!("{op:?}:{}", one.requests)).collect();
            println!("{} {} {depth} {count} [{}]", all.requests, all.bytes_down, kinds.join(","));
        };
        told(0);
        for sql in arguments {
            let mut rows = connection.query(&sql, ()).await.unwrap();
            let mut count = 0;
            while rows.next().await.unwrap().is_some() {
                count += 1;
            }
            told(count);
        }
    });
}
