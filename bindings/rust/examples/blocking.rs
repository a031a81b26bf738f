//! A program without a runtime: threads, each with a connection of its own.
//!
//!     cargo run -p littoral --example blocking -- app.db

use futures::executor::block_on;
use littoral::Builder;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "app.db".to_owned());
    let database = block_on(Builder::new(&path).build())?;
    let conn = database.connect_blocking()?;
    block_on(conn.execute("CREATE TABLE IF NOT EXISTS seen(thread INTEGER)", ()))?;

    let done: Result<Vec<()>, String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let database = &database;
                scope.spawn(move || {
                    let conn = database.connect_blocking().map_err(|error| error.to_string())?;
                    block_on(conn.execute("INSERT INTO seen VALUES (?1)", [thread]))
                        .map_err(|error| error.to_string())?;
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread broke down".to_owned())))
            .collect()
    });
    done?;
    println!("4 threads wrote; safe up to {}", block_on(database.checkpoint())?);
    Ok(())
}
