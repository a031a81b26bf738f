//! Tells whoever started this process as a service how it is (`sd_notify(3)`): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsStr;
#[cfg(target_os = "linux")]
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says it, where somebody wants to hear it. Who cannot be reached is not told.
pub fn notify(text: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = address(&name).and_then(|address| UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address));
    if let Err(error) = told {
        tracing::debug!(%error, "NOTIFY_SOCKET cannot be reached");
    }
}

/// A path, or an abstract name behind an `@`.
fn address(name: &OsStr) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.as_bytes().strip_prefix(b"@") {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    SocketAddr::from_pathname(name)
}
