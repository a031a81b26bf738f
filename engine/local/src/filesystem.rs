//! What lies below a directory: which kind of file system, how much room, which file.

use crate::error::{LocalError, on};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Which file a path leads to, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    /// The device it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

/// The file at a path, `None` when there is none.
pub fn file_id(path: &Path) -> Result<Option<FileId>, LocalError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(FileId { device: found.dev(), inode: found.ino() })),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(on("look at", path)(error)),
    }
}

/// Bytes that an ordinary user may still write to the file system a directory is on.
pub fn free_bytes(dir: &Path) -> Result<u64, LocalError> {
    let room = rustix::fs::statvfs(dir).map_err(on("ask for the free space of", dir))?;
    Ok(room.f_bavail.saturating_mul(room.f_frsize))
}

/// Refuses before the first byte when fewer than `needed` are free.
pub fn require_free(dir: &Path, needed: u64) -> Result<(), LocalError> {
    let free = free_bytes(dir)?;
    if free < needed {
        return Err(LocalError::Full {
            path: dir.into(),
            detail: format!("{needed} bytes are needed, {free} are free"),
        });
    }
    Ok(())
}

/// File systems, by their magic number, on which another machine may write too: `flock` and shared memory mean little there.
const NETWORK: &[(u32, &str)] = &[
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x7375_7245, "coda"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "kafs"),
    (0x564c, "ncp"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1983_0326, "beegfs"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0xaad7_aaea, "panfs"),
];

/// FUSE says nothing of what stands behind it, except by name.
const FUSE: u32 = 0x6573_5546;

/// Names of FUSE file systems behind which a network stands.
const NETWORK_FUSE: &[&str] = &[
    "sshfs",
    "s3fs",
    "gcsfuse",
    "rclone",
    "glusterfs",
    "ceph-fuse",
    "ceph",
    "juicefs",
    "davfs",
    "davfs2",
    "goofys",
    "s3ql",
    "blobfuse",
    "blobfuse2",
    "mount-s3",
    "mountpoint-s3",
    "moosefs",
    "mfs",
    "lizardfs",
    "seaweedfs",
    "weed",
    "curlftpfs",
    "gvfsd-fuse",
];

/// The network file system of that magic number, or of that FUSE name. 9p is none: it is how a virtual machine sees its
/// own host's disk.
fn network_kind(magic: u32, fuse: Option<&str>) -> Option<String> {
    if magic == FUSE {
        let name = fuse?;
        let known = NETWORK_FUSE.iter().any(|known| name.eq_ignore_ascii_case(known));
        return known.then(|| format!("fuse.{name}"));
    }
    NETWORK.iter().find(|(known, _)| *known == magic).map(|(_, name)| (*name).to_owned())
}

/// File systems on which a store feels at home, by their magic number. 9p is how a virtual machine sees its own host's disk.
const LOCAL: &[(u32, &str)] = &[
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x2fc1_2fc1, "zfs"),
    (0xf2f5_2010, "f2fs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x794c_7630, "overlayfs"),
    (0x0102_1997, "9p"),
    (0x4d44, "fat"),
    (FUSE, "fuse"),
];

/// The name of the file system a directory is on, for people; its magic number where it has no name here.
#[cfg(target_os = "linux")]
pub fn kind(dir: &Path) -> Result<String, LocalError> {
    let magic = magic(dir)?;
    let name = NETWORK.iter().chain(LOCAL).find(|(known, _)| *known == magic).map(|(_, name)| (*name).to_owned());
    Ok(name.unwrap_or_else(|| format!("{magic:#x}")))
}

/// Where the kernel does not tell, nobody knows.
#[cfg(not(target_os = "linux"))]
pub fn kind(_: &Path) -> Result<String, LocalError> {
    Ok("unknown".to_owned())
}

#[cfg(test)]
thread_local! {
    /// The file system that a test's directories are on, whatever the kernel says.
    pub(crate) static PRETENDED: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

#[cfg(target_os = "linux")]
fn magic(dir: &Path) -> Result<u32, LocalError> {
    #[cfg(test)]
    if let Some(pretended) = PRETENDED.get() {
        return Ok(pretended);
    }
    let found = rustix::fs::statfs(dir).map_err(on("ask for the file system of", dir))?;
    // The kernel's magic numbers have 32 bits; some architectures extend their sign.
    Ok(found.f_type as u32)
}

/// Refuses a directory on a network file system.
#[cfg(target_os = "linux")]
pub fn require_local(dir: &Path) -> Result<(), LocalError> {
    let magic = magic(dir)?;
    let fuse = if magic == FUSE { fuse_name(dir) } else { None };
    match network_kind(magic, fuse.as_deref()) {
        Some(kind) => Err(LocalError::NetworkFileSystem { path: dir.into(), kind }),
        None => Ok(()),
    }
}

/// Where the kernel does not tell, the user is believed.
#[cfg(not(target_os = "linux"))]
pub fn require_local(_: &Path) -> Result<(), LocalError> {
    Ok(())
}

/// What stands behind `fuse.` in the mount table, for the mount that the directory is on.
#[cfg(target_os = "linux")]
fn fuse_name(dir: &Path) -> Option<String> {
    let device = fs::metadata(dir).ok()?.dev();
    let wanted = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| fuse_name_in(line, &wanted))
}

/// `36 35 98:0 /root /mount options - fuse.sshfs host:/dir rw`
#[cfg(target_os = "linux")]
fn fuse_name_in(line: &str, device: &str) -> Option<String> {
    let (head, tail) = line.split_once(" - ")?;
    if head.split(' ').nth(2)? != device {
        return None;
    }
    let mut tail = tail.split(' ');
    match tail.next()?.split_once('.') {
        Some((_, name)) => Some(name.to_owned()),
        // Without a subtype the source is often the program's own name.
        None => tail.next().map(|source| source.trim_end_matches('#').to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_network_file_systems_are_told_from_local_ones() {
        for (magic, fuse, expected) in [
            (0x6969, None, Some("nfs")),
            (0xff53_4d42, None, Some("cifs")),
            (0xfe53_4d42, None, Some("smb2")),
            (FUSE, Some("sshfs"), Some("fuse.sshfs")),
            (FUSE, Some("ntfs-3g"), None),
            (FUSE, None, None),
            (0xef53, None, None),      // ext4
            (0x9123_683e, None, None), // btrfs
            (0x0102_1994, None, None), // tmpfs
            (0x0102_1997, None, None), // 9p
        ] {
            assert_eq!(network_kind(magic, fuse).as_deref(), expected, "{magic:#x} {fuse:?}");
        }
        require_local(&std::env::temp_dir()).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_mount_table_names_what_stands_behind_fuse() {
        let line = "99 30 0:52 / /mnt/far rw,nosuid shared:41 - fuse.sshfs me@far:/data rw,user_id=0";
        assert_eq!(fuse_name_in(line, "0:52").as_deref(), Some("sshfs"));
        assert_eq!(fuse_name_in(line, "0:5"), None);
        let bare = "99 30 0:52 / /mnt/far rw - fuse s3fs rw";
        assert_eq!(fuse_name_in(bare, "0:52").as_deref(), Some("s3fs"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_has_a_name() {
        assert_eq!(kind(Path::new("/proc")).unwrap(), "0x9fa0");
        assert!(!kind(&std::env::temp_dir()).unwrap().is_empty());
    }

    #[test]
    fn room_is_asked_for_before_the_first_byte() {
        let dir = tempfile::tempdir().unwrap();
        require_free(dir.path(), 1).unwrap();
        let refused = require_free(dir.path(), u64::MAX).unwrap_err();
        assert!(matches!(refused, LocalError::Full { .. }), "{refused:?}");
        assert!(refused.to_string().contains("bytes are needed"), "{refused}");
    }
}
