//! Random SQL in several processes with the extension and without it, checkpoints by any of them, kills, losses: every restore
//! is what was committed.
//!
//! Without end: `cargo run -p littoral-compat --bin vfs-model`. One seed again: `... -- --seed N --worlds 1`.

use littoral_compat::model::worlds;
use std::time::Duration;

/// A slow machine lives through fewer worlds.
const PATIENCE: Duration = Duration::from_secs(150);

#[test]
fn every_checkpoint_of_any_process_restores_what_was_committed() {
    let (lived, all) = worlds(0..40, 60, PATIENCE);
    assert!(lived >= 240, "only {lived} steps");
    for what in ["checkpoints compared byte for byte", "checkpoints under writers", "kills", "losses", "shapes"] {
        assert!(all.of(what) > 0, "{what} never came to pass");
    }
}
