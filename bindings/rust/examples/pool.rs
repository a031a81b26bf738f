//! Many connections of one database: tasks that write, and one that brings what they wrote to the object store while they do.
//!
//!     cargo run -p littoral --example pool -- app.db

use littoral::Builder;
use std::error::Error;
use std::time::Duration;

const TASKS: u32 = 4;
const ROWS: u32 = 100;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "app.db".to_owned());
    // The last connection to close waits for a checkpoint, so that nothing is left behind when the program ends.
    let database = Builder::new(&path).close_wait(Duration::from_secs(30)).build().await?;
    let conn = database.connect().await?;
    conn.execute("CREATE TABLE IF NOT EXISTS job(task INTEGER, nth INTEGER)", ()).await?;

    let mut tasks = Vec::new();
    for task in 0..TASKS {
        // A pool's manager does the same: it keeps the database, and calls `connect`.
        let conn = database.connect().await?;
        tasks.push(tokio::spawn(async move {
            for nth in 0..ROWS {
                conn.execute("INSERT INTO job VALUES (?1, ?2)", (task, nth)).await?;
            }
            Ok::<_, libsql::Error>(())
        }));
    }
    let during = database.checkpoint().await?;
    for task in tasks {
        task.await??;
    }
    let after = database.checkpoint().await?;
    println!("{} rows written by {TASKS} connections; safe up to {during} meanwhile, {after} now", TASKS * ROWS);
    println!("the object store has everything: {}", database.status().await?.is_safe());
    Ok(())
}
