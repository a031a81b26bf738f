//! The folder on a disk that is watched, that fails, and that loses its power.

use super::*;
use littoral_ports::MemoryBody;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

#[derive(Debug)]
struct Now;

#[async_trait]
impl Clock for Now {
    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
    }

    fn boot_ms(&self) -> u64 {
        self.wall_ms()
    }

    async fn sleep_ms(&self, _: u64) {}
}

/// Counts: distinct within a test, and a store of its own per process.
#[derive(Debug, Default)]
struct Count(AtomicU64);

impl Entropy for Count {
    fn fill(&self, bytes: &mut [u8]) {
        let count = self.0.fetch_add(1, Ordering::Relaxed);
        bytes.fill(0);
        bytes[..8].copy_from_slice(&count.to_le_bytes());
    }
}

fn at(path: &str) -> ObjectPath {
    ObjectPath::parse(path).unwrap()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Create(PathBuf),
    Write(PathBuf),
    SyncFile(PathBuf),
    SyncFolder(PathBuf),
    MakeFolder(PathBuf),
    Link(PathBuf, PathBuf),
    RenameNew(PathBuf, PathBuf),
    RenameOver(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// The machine's disk, watched; from a step on it fails as told.
#[derive(Debug, Default)]
struct Watched {
    steps: Mutex<Vec<Step>>,
    fail_at: Mutex<Option<(usize, i32)>>,
    no_links: bool,
    no_new_names: bool,
}

impl Watched {
    fn step(&self, step: Step) -> io::Result<()> {
        let mut steps = self.steps.lock().unwrap();
        // Tidying up goes on when nothing else does.
        let tidying = matches!(step, Step::Remove(_));
        let number = steps.iter().filter(|step| !matches!(step, Step::Remove(_))).count();
        steps.push(step);
        match *self.fail_at.lock().unwrap() {
            Some((from, code)) if number >= from && !tidying => Err(io::Error::from_raw_os_error(code)),
            _ => Ok(()),
        }
    }

    fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.steps.lock().unwrap())
    }
}

impl Disk for Watched {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.step(Step::Create(path.into()))?;
        RealDisk.create(path)
    }

    fn write(&self, path: &Path, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Write(path.into()))?;
        RealDisk.write(path, file, bytes)
    }

    fn sync_file(&self, path: &Path, file: &File) -> io::Result<()> {
        self.step(Step::SyncFile(path.into()))?;
        RealDisk.sync_file(path, file)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Step::SyncFolder(path.into()))?;
        RealDisk.sync_folder(path)
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        self.step(Step::MakeFolder(path.into()))?;
        RealDisk.make_folder(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::Link(from.into(), to.into()))?;
        if self.no_links {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::PERM.raw_os_error()));
        }
        RealDisk.link(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::RenameNew(from.into(), to.into()))?;
        if self.no_new_names {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::INVAL.raw_os_error()));
        }
        RealDisk.rename_new(from, to)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Step::RenameOver(from.into(), to.into()))?;
        RealDisk.rename_over(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Step::Remove(path.into()))?;
        RealDisk.remove(path)
    }
}

/// What the power would take of an object after these steps: `None` if nothing.
fn lost_by_power(steps: &[Step], place: &Path, above: &Path) -> Option<String> {
    let mut files: BTreeMap<PathBuf, usize> = BTreeMap::new();
    let mut unsynced_bytes = HashSet::new();
    let mut unsynced_names: HashSet<PathBuf> = HashSet::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Create(path) => {
                files.insert(path.clone(), number);
                unsynced_bytes.insert(number);
            }
            Step::Write(path) => {
                unsynced_bytes.insert(files[path]);
            }
            Step::SyncFile(path) => {
                unsynced_bytes.remove(&files[path]);
            }
            Step::SyncFolder(folder) => unsynced_names.retain(|name| name.parent() != Some(folder)),
            Step::MakeFolder(path) => {
                unsynced_names.insert(path.clone());
            }
            Step::Link(from, to) | Step::RenameNew(from, to) | Step::RenameOver(from, to) => {
                if unsynced_bytes.contains(&files[from]) {
                    return Some(format!("{} is visible before its bytes are synced", to.display()));
                }
                unsynced_names.insert(to.clone());
            }
            Step::Remove(_) => {}
        }
    }
    let mut name = place;
    while name != above {
        if unsynced_names.contains(name) {
            return Some(format!("the name {} may go", name.display()));
        }
        name = name.parent()?;
    }
    None
}

struct Rig {
    folder: tempfile::TempDir,
    disk: Arc<Watched>,
    directory: Directory,
}

fn rig(disk: Watched) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(disk);
    let directory = Directory::on_disk(
        &folder.path().join("remote"),
        Arc::clone(&disk) as _,
        Arc::new(Now),
        Arc::new(Count::default()),
    );
    Rig { folder, disk, directory }
}

impl Rig {
    fn root(&self) -> PathBuf {
        self.folder.path().join("remote")
    }

    fn unfinished(&self) -> usize {
        fs::read_dir(self.root().join(TEMP_FOLDER)).map(Iterator::count).unwrap_or(0)
    }

    async fn write(&self, how: &str, path: &ObjectPath, bytes: &'static [u8]) -> Result<(), RemoteError> {
        match how {
            "put" => self.directory.put(path, Bytes::from_static(bytes)).await,
            "put_new" => self.directory.put_new(path, Bytes::from_static(bytes)).await,
            _ => self.directory.upload(path, &MemoryBody::new(bytes)).await,
        }
    }
}

const WAYS: [&str; 3] = ["put", "put_new", "upload"];

#[tokio::test]
async fn p15_files_and_folders_are_synced_before_a_write_returns() {
    for no_links in [false, true] {
        let rig = rig(Watched { no_links, ..Watched::default() });
        let mut steps = Vec::new();
        for (n, how) in WAYS.into_iter().cycle().take(9).enumerate() {
            // New folders, known folders, a folder below a known one.
            let path = at(["v/log", "v/log", "w/chunk/deep"][n / 3]);
            let path = at(&format!("{path}/{n}"));
            rig.write(how, &path, b"bytes").await.unwrap();
            steps.extend(rig.disk.take());
            let place = rig.root().join(path.as_str());
            assert_eq!(lost_by_power(&steps, &place, rig.folder.path()), None, "{how} {path}: {steps:#?}");
        }
    }
}

#[tokio::test]
async fn p15_whoever_is_told_that_a_name_exists_finds_it_after_the_power_went() {
    let rig = rig(Watched::default());
    rig.write("put_new", &at("v/log/1"), b"first").await.unwrap();
    // Another process gave the name and was stopped before it synced the folder.
    fs::write(rig.root().join("v/log/2"), b"theirs").unwrap();
    rig.disk.take();
    let told = rig.write("put_new", &at("v/log/2"), b"ours").await;
    assert!(matches!(told, Err(RemoteError::Exists { .. })), "{told:?}");
    assert!(rig.disk.take().contains(&Step::SyncFolder(rig.root().join("v/log"))));
}

#[tokio::test]
async fn p15_the_check_notices_every_sync_that_is_left_out() {
    for how in WAYS {
        let rig = rig(Watched::default());
        rig.write(how, &at("v/log/1"), b"bytes").await.unwrap();
        let steps = rig.disk.take();
        let place = rig.root().join("v/log/1");
        let matters = |step: &Step| match step {
            Step::SyncFile(_) => true,
            // The folder of unfinished files holds nothing that anyone counts on; a root that was there is its owner's.
            Step::SyncFolder(folder) => folder.starts_with(rig.folder.path()),
            _ => false,
        };
        let mut noticed = 0;
        for left_out in 0..steps.len() {
            if matters(&steps[left_out]) {
                let mut fewer = steps.clone();
                let gone = fewer.remove(left_out);
                noticed += usize::from(lost_by_power(&fewer, &place, rig.folder.path()).is_some());
                assert!(
                    lost_by_power(&fewer, &place, rig.folder.path()).is_some()
                        || steps.iter().filter(|s| **s == gone).count() > 1,
                    "{how} without {gone:?} passes"
                );
            }
        }
        assert!(noticed >= 4, "{how}: the file, its folder and those above it: {noticed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p15_the_kernel_is_really_asked() {
    if let Ok(root) = std::env::var("LITTORAL_TEST_TRACED_ROOT") {
        let directory = Directory::new(root.as_ref(), Arc::new(Now), Arc::new(Count::default()));
        directory.put_new(&at("v/log/1"), Bytes::from_static(b"bytes")).await.unwrap();
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("remote");
    let log = folder.path().join("trace");
    let traced = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync,linkat,link", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "directory::tests::p15_the_kernel_is_really_asked"])
        .env("LITTORAL_TEST_TRACED_ROOT", &root)
        .output();
    let Some(traced) = traced.ok().filter(|traced| traced.status.success()) else {
        eprintln!("not traced: no strace here, or tracing is not allowed");
        return;
    };
    drop(traced);
    let trace = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = trace.lines().collect();
    let find = |word: &str, place: &Path| {
        let place = format!("{}>", place.display());
        lines.iter().position(|line| line.contains(word) && line.contains(&place))
    };
    let linked = lines.iter().position(|line| line.contains("link")).expect("a link");
    let synced =
        |place: &Path| find("sync(", place).unwrap_or_else(|| panic!("{} is not synced:\n{trace}", place.display()));
    for made in [folder.path().to_owned(), root.clone(), root.join("v")] {
        synced(&made);
    }
    assert!(
        lines[..linked].iter().any(|line| line.contains("sync(") && line.contains(TEMP_FOLDER)),
        "the file:\n{trace}"
    );
    assert!(synced(&root.join("v/log")) > linked, "the folder before it holds the name:\n{trace}");
}

#[tokio::test]
async fn a_full_disk_at_any_step_is_said_and_leaves_nothing_half_done() {
    let (full, quota) = (rustix::io::Errno::NOSPC.raw_os_error(), rustix::io::Errno::DQUOT.raw_os_error());
    for (how, code) in WAYS.into_iter().flat_map(|how| [(how, full), (how, quota)]) {
        for step in 0.. {
            let rig = rig(Watched::default());
            *rig.disk.fail_at.lock().unwrap() = Some((step, code));
            let path = at("v/log/1");
            let done = rig.write(how, &path, b"bytes").await;
            let steps = rig.disk.take();
            let named = steps.iter().position(|step| matches!(step, Step::Link(..) | Step::RenameOver(..)));
            if done.is_ok() {
                assert!(step > 5, "{how}: a full disk was not noticed at {step}");
                break;
            }
            // The name was given and its folder could not be synced: only then the outcome is not known.
            let given =
                named.is_some_and(|named| named + 1 < steps.iter().filter(|s| !matches!(s, Step::Remove(_))).count());
            match done {
                Err(RemoteError::Unknown { .. }) => assert!(given && how == "put_new", "{how} at {step}: {steps:?}"),
                Err(RemoteError::Full { .. }) => assert!(!given || how != "put_new", "{how} at {step}: {steps:?}"),
                other => panic!("{how} at {step}: {other:?}"),
            }
            *rig.disk.fail_at.lock().unwrap() = None;
            assert_eq!(rig.unfinished(), 0, "{how} at {step}: an unfinished file stays");
            match rig.directory.get(&path).await {
                Ok(bytes) => assert!(given && bytes == "bytes", "{how} at {step}: half an object"),
                Err(RemoteError::Missing { .. }) => assert!(!given, "{how} at {step}"),
                other => panic!("{other:?}"),
            }
            // Room again: it works.
            let again = rig.write(if given { "put" } else { how }, &path, b"bytes").await;
            assert!(again.is_ok(), "{how} after {step}: {again:?}");
        }
    }
}

#[tokio::test]
async fn file_systems_without_links_fence_by_rename_and_those_without_both_are_refused() {
    let path = at("v/log/1");
    let linkless = rig(Watched { no_links: true, ..Watched::default() });
    linkless.write("put_new", &path, b"first").await.unwrap();
    let again = linkless.write("put_new", &path, b"second").await;
    assert!(matches!(again, Err(RemoteError::Exists { .. })), "{again:?}");
    assert_eq!(linkless.directory.get(&path).await.unwrap(), "first");
    assert_eq!(linkless.unfinished(), 0);
    // Also where the name appears between the look and the rename.
    let raced = futures::future::join_all((0..8).map(|_| linkless.write("put_new", &path, b"x"))).await;
    assert!(raced.iter().all(|done| matches!(done, Err(RemoteError::Exists { .. }))));

    let neither = rig(Watched { no_links: true, no_new_names: true, ..Watched::default() });
    let refused = neither.write("put_new", &path, b"first").await;
    assert!(matches!(refused, Err(RemoteError::NotFencing { .. })), "{refused:?}");
    assert!(matches!(neither.directory.get(&path).await, Err(RemoteError::Missing { .. })));
}

#[tokio::test]
async fn the_root_is_made_by_the_first_write_and_its_parent_by_nobody() {
    let rig = rig(Watched::default());
    assert!(matches!(rig.directory.get(&at("v/head")).await, Err(RemoteError::Missing { .. })));
    assert_eq!(rig.directory.list("v", None, 10).await.unwrap(), vec![]);
    rig.directory.delete(&[at("v/head")]).await.unwrap();
    assert!(!rig.root().exists(), "reading makes nothing");
    rig.write("put_new", &at("v/head"), b"x").await.unwrap();
    assert!(rig.root().is_dir());

    let deep = rig.folder.path().join("no/such/place");
    let orphan = Directory::new(&deep, Arc::new(Now), Arc::new(Count::default()));
    let no_bucket = |error: RemoteError| assert!(matches!(error, RemoteError::NoBucket { .. }), "{error:?}");
    no_bucket(orphan.put_new(&at("v/head"), Bytes::new()).await.unwrap_err());
    no_bucket(orphan.put(&at("v/head"), Bytes::new()).await.unwrap_err());
    no_bucket(orphan.upload(&at("v/head"), &MemoryBody::new("x")).await.unwrap_err());
    no_bucket(orphan.get(&at("v/head")).await.unwrap_err());
    no_bucket(orphan.list("v", None, 10).await.unwrap_err());
    assert!(!rig.folder.path().join("no").exists());

    fs::write(rig.folder.path().join("file"), b"x").unwrap();
    let on_a_file = Directory::new(&rig.folder.path().join("file"), Arc::new(Now), Arc::new(Count::default()));
    let refused = on_a_file.put(&at("v/head"), Bytes::new()).await.unwrap_err();
    assert!(matches!(refused, RemoteError::Settings(_)), "{refused:?}");
}

#[tokio::test]
async fn a_folder_that_may_not_be_written_is_denied() {
    for errno in [rustix::io::Errno::ACCESS, rustix::io::Errno::ROFS] {
        for how in WAYS {
            let rig = rig(Watched::default());
            *rig.disk.fail_at.lock().unwrap() = Some((0, errno.raw_os_error()));
            let denied = rig.write(how, &at("v/head"), b"x").await;
            assert!(matches!(denied, Err(RemoteError::Denied { .. })), "{how}: {denied:?}");
        }
    }
    // The real thing, where the tests' user is not allowed everything.
    let folder = tempfile::tempdir().unwrap();
    let mut permissions = fs::metadata(folder.path()).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.path(), permissions).unwrap();
    if fs::write(folder.path().join("allowed"), b"").is_err() {
        let directory = Directory::new(folder.path(), Arc::new(Now), Arc::new(Count::default()));
        let denied = directory.put_new(&at("v/head"), Bytes::new()).await;
        assert!(matches!(denied, Err(RemoteError::Denied { .. })), "{denied:?}");
    }
}

#[tokio::test]
async fn what_dead_writers_left_is_removed_and_what_living_ones_write_is_not() {
    let rig = rig(Watched::default());
    rig.write("put", &at("v/head"), b"x").await.unwrap();
    let temps = rig.root().join(TEMP_FOLDER);
    let old = SystemTime::now() - std::time::Duration::from_secs(2 * 3600);
    let leave = |name: &str, aged: bool| {
        let file = File::create(temps.join(name)).unwrap();
        if aged {
            file.set_modified(old).unwrap();
        }
        file
    };
    leave("dead", true);
    leave("young", false);
    let living = leave("living", true);
    flock(&living, FlockOperation::NonBlockingLockExclusive).unwrap();
    let another = Directory::new(&rig.root(), Arc::new(Now), Arc::new(Count(AtomicU64::new(1 << 40))));
    another.put(&at("v/head"), Bytes::from_static(b"y")).await.unwrap();
    let mut left: Vec<String> =
        fs::read_dir(&temps).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["living", "young"]);
    assert_eq!(rig.directory.list("", None, 10).await.unwrap().len(), 1, "unfinished files are no objects");
}

#[tokio::test]
async fn folders_removed_behind_its_back_are_made_again() {
    let rig = rig(Watched::default());
    rig.write("put_new", &at("v/log/1"), b"x").await.unwrap();
    fs::remove_dir_all(rig.root()).unwrap();
    for (n, how) in WAYS.into_iter().enumerate() {
        rig.write(how, &at(&format!("v/log/{n}")), b"y").await.unwrap();
        fs::remove_dir_all(rig.root().join("v")).unwrap();
    }
    rig.write("put_new", &at("v/log/9"), b"z").await.unwrap();
    assert_eq!(rig.directory.get(&at("v/log/9")).await.unwrap(), "z");
}
