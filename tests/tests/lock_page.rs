//! The model across SQLite's lock page, which is moved down for this whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_tests::lock_page;
use littoral_tests::world::{Layout, Tally, World};

#[test]
fn every_restore_is_the_stock_copy_across_the_lock_page() {
    lock_page::move_to(0x10000);
    let mut all = Tally::default();
    for seed in 20_000..20_040 {
        println!("seed {seed}, pending byte 65536");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let layout = Layout::of(seed, 60);
        all.merge(&runtime.block_on(World::new(layout).live()));
    }
    println!("{all}");
    assert!(all.of("commits across the lock page") > 100, "{all}");
}
