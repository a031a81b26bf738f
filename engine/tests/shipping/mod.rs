//! Commits that are shipped, for tests of what travels commit by commit.

use littoral_engine::EngineError;
use littoral_engine::exec::segment::{self, Before, Shipped, ShippedSegment};
use littoral_engine::log::Writer;
use littoral_ports::Commits;

/// Frames commits, and sends them: there is nothing to close in between.
pub(crate) async fn ship(
    writer: &mut Writer,
    commits: Commits,
    shipped: &mut Shipped,
    before: Before<'_>,
) -> Result<ShippedSegment, EngineError> {
    let ready = segment::frame(writer, commits, shipped, before).await?;
    segment::send(writer, ready, shipped).await
}
