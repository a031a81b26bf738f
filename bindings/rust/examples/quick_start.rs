//! Opens a database, writes, and brings it to the object store:
//!
//!     cargo run -p littoral --example quick_start -- app.db s3://bucket/prefix
//!
//! Without a remote it goes to `.littoral/remote` beside the database, so that this runs anywhere.

use littoral::Builder;
use std::error::Error;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "app.db".to_owned());
    let mut builder = Builder::new(&path);
    if let Some(remote) = arguments.next() {
        builder = builder.remote(remote);
    }
    let conn = builder.open().await?;

    conn.execute("CREATE TABLE IF NOT EXISTS visit(at TEXT NOT NULL)", ()).await?;
    conn.execute("INSERT INTO visit VALUES (datetime('now'))", ()).await?;
    let mut rows = conn.query("SELECT count(*) FROM visit", ()).await?;
    let visits: i64 = rows.next().await?.ok_or("a count has a row")?.get(0)?;
    println!("visit {visits} of {path}");

    let position = littoral::checkpoint(&conn).await?;
    let status = littoral::status(&conn).await?;
    println!("safe up to {position} in {}", status.volume().unwrap_or("?"));
    Ok(())
}
