//! The packages, installed where nothing else of ours is: a machine writes, is lost, and another one finds everything in the object store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // The rig of a test is a test.

use littoral_hosts::packages::{Installed, frameworks, made, package, unpacked};
use littoral_hosts::{Place, WRITTEN, built, built_archive, command, program, room, said};
use littoral_test_s3::S3Server;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What hosts wrote, as they show it themselves.
fn written() -> &'static str {
    WRITTEN.lines().next().unwrap()
}

/// A place in a bucket of one's own, and the keys to it.
fn on_s3(name: &str) -> (String, Vec<(&'static str, String)>) {
    let server = S3Server::shared();
    (format!("s3://{}/{name}", server.bucket()), server.env())
}

fn lines(command: &mut Command) -> Vec<String> {
    said(command).lines().map(str::to_owned).collect()
}

#[test]
fn a_machine_with_only_python_installs_the_wheel_is_lost_and_another_one_goes_on_from_the_object_store() {
    let (place, installed, (remote, keys)) = (Place::new(), Installed::wheel(), on_s3("wheel"));
    let script = |words: &[&str]| {
        let mut script = installed.script(&place, "package.py", words);
        script.env("REMOTE", &remote).envs(keys.iter().cloned());
        lines(&mut script)
    };
    let [position] = &script(&["write"])[..] else { panic!("one position") };
    place.lose_machine();
    let [found, later, past] = &script(&["read", position])[..] else { panic!("three lines") };
    assert_eq!((found.as_str(), past.as_str()), (written(), "1000"));
    assert_ne!(position, later);
}

#[test]
fn in_python_what_sqlite_tells_by_a_code_alone_is_an_error_that_says_why_and_other_errors_are_what_they_were() {
    let place = Place::new();
    let mut script = Installed::wheel().script(&place, "package.py", &["told"]);
    assert_eq!(said(script.env("REMOTE", place.remote())), "told\n");
}

#[test]
fn sqlalchemy_django_apsw_and_pysqlite3_work_by_the_settings_that_the_wheels_page_names() {
    let Some(frameworks) = frameworks() else { return };
    for name in ["sqlalchemy", "django", "apsw", "pysqlite3"] {
        let place = Place::new();
        let run = |what: &str| {
            let mut script = Installed::wheel().script(&place, "frameworks.py", &[name, what]);
            said(script.env("REMOTE", place.remote()).env("PYTHONPATH", &frameworks))
        };
        assert_eq!(run("write"), "hello\n", "{name}");
        place.lose_machine();
        assert_eq!(run("read"), "hello\n", "{name}");
    }
}

#[test]
fn what_a_program_commits_that_ends_at_once_is_in_the_object_store_when_it_has_ended() {
    for nth in 0..8 {
        let place = Place::new();
        let journal = ["wal", "delete"][nth % 2];
        let mut script = Installed::wheel().script(&place, "brief.py", &[journal]);
        said(script.env("REMOTE", place.remote()).env_remove("LITTORAL_SYNC_INTERVAL"));
        place.lose_machine();
        place.restore("app.db", "back.db");
        assert_eq!(place.stock("back.db", "SELECT text FROM note"), "hello", "program {nth}, {journal}");
    }
}

#[test]
fn whoever_ships_and_finds_the_file_locked_keeps_nobody_from_unlocking_it() {
    let place = Place::new();
    let mut script = Installed::wheel().script(&place, "briefly.py", &[]);
    script.env("REMOTE", place.remote()).env_remove("LITTORAL_SYNC_INTERVAL");
    let mut program = script.spawn().unwrap();
    // Commits that each wait for whoever waits for them, until he gives up after five seconds, take longer.
    let until = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = program.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            program.kill().unwrap();
            panic!("a commit waits for whoever waits for it");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success());
}

/// A machine that has Node, and our package in a folder that was empty.
struct Node {
    place: Place,
    node: PathBuf,
}

impl Node {
    fn new() -> Self {
        Self { place: Place::new(), node: program("node") }
    }

    fn install(&self) {
        let path = std::env::join_paths([self.node.join("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
        let mut npm = command(self.node.join("bin/npm"));
        npm.current_dir(self.place.machine()).env("PATH", path).env("HOME", self.place.machine().parent().unwrap());
        said(npm.args(["install", "--offline", "--no-audit", "--no-fund", "--omit=peer"]).arg(package("npm")));
    }

    fn script(&self, words: &[&str]) -> Command {
        fs::copy(room().join("scripts/package.js"), self.place.machine().join("package.js")).unwrap();
        let mut node = command(self.node.join("bin/node"));
        node.current_dir(self.place.machine()).args(["--no-warnings", "package.js"]).args(words);
        if words[1] == "better-sqlite3" {
            node.env("NODE_PATH", self.node.join("node_modules"));
        }
        node
    }
}

fn node_goes_on_elsewhere(whose: &str, choose: &[(&str, &str)]) {
    let (machine, (remote, keys)) = (Node::new(), on_s3("npm"));
    let run = |words: &[&str]| {
        let mut script = machine.script(words);
        script.env("REMOTE", &remote).envs(keys.iter().cloned()).envs(choose.iter().copied());
        lines(&mut script)
    };
    machine.install();
    let [position] = &run(&["write", whose])[..] else { panic!("one position") };
    machine.place.lose_machine();
    machine.install();
    let [found, later, past, now, replica] = &run(&["read", whose, position])[..] else { panic!("five lines") };
    assert_eq!([found, past, now, replica], [written(), "1000", "1001", "1001"]);
    assert_ne!(position, later);
    assert_eq!(run(&["told", whose]), ["told"]);
}

#[test]
fn a_machine_with_node_and_better_sqlite3_installs_the_package_is_lost_and_another_one_goes_on_from_the_object_store() {
    node_goes_on_elsewhere("better-sqlite3", &[]);
}

#[test]
fn a_machine_with_only_node_does_the_same_with_the_sqlite_of_node() {
    node_goes_on_elsewhere("node:sqlite", &[("CHOOSE", "1")]);
}

#[test]
fn the_types_for_node_name_every_setting_that_there_is() {
    let types = fs::read_to_string(room().join("../../bindings/node/index.d.ts")).unwrap();
    let named: Vec<&str> =
        types.lines().filter_map(|line| line.strip_prefix("  ")?.strip_suffix("?: Setting;")).collect();
    let page = fs::read_to_string(room().join("../../docs/cli.md")).unwrap();
    let (_, table) = page.split_once("| setting | value | default |\n|---|---|---|\n").unwrap();
    let listed: Vec<&str> =
        table.lines().map_while(|line| line.strip_prefix("| `")?.split_once("` |").map(|(name, _)| name)).collect();
    let sorted = |mut names: Vec<&str>| {
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(sorted(named), sorted(listed));
}

/// Compiles a program, ours or one of the package's, with what is said behind it, and gives it.
fn compile(place: &Place, source: &str, words: &str) -> Command {
    let source = room().join("../../bindings/c").join(source);
    let mut shell = command("bash");
    shell.current_dir(place.machine());
    said(shell.args(["-euc", &format!("cc -Wall -Wextra -Werror {} {words} -o example", source.display())]));
    command(place.machine().join("example"))
}

fn an_example_goes_on_elsewhere(place: &Place, program: impl Fn(&Place) -> Command) {
    let uri = format!("file:app.db?vfs=littoral&remote={}", place.remote());
    let run = |words: &[&str]| said(program(place).current_dir(place.machine()).args(words));
    let told = run(&[&uri, "hello"]);
    assert!(told.starts_with("safe up to 1.") && told.ends_with("\nhello\n"), "{told}");
    place.lose_machine();
    assert_eq!(run(&[&uri]), "hello\n");
    let refused = program(place).current_dir(place.machine()).arg(format!("{uri}&remoet=x")).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("unable to open database file: ") && why.contains("did you mean \"remote\""), "{why}");
}

#[test]
fn a_program_in_c_is_compiled_with_the_package_by_pkg_config_and_another_machine_goes_on_where_it_stood() {
    let prefix = &unpacked().prefix;
    an_example_goes_on_elsewhere(&Place::new(), |place| {
        let config = format!("PKG_CONFIG_PATH={}/lib/pkgconfig pkg-config", prefix.display());
        let version = said(command("bash").args(["-euc", &format!("{config} --modversion littoral")]));
        assert_eq!(version.trim_end(), env!("CARGO_PKG_VERSION"));
        let mut example = compile(place, "example.c", &format!("$({config} --cflags --libs littoral)"));
        example.env("LD_LIBRARY_PATH", prefix.join("lib"));
        example
    });
}

/// The package to link with, unpacked.
fn to_link_with() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        built_archive();
        let prefix = built().extension.with_file_name("installed").join("static");
        let _ = fs::remove_dir_all(&prefix);
        fs::create_dir_all(&prefix).unwrap();
        said(command("tar").arg("xf").arg(package("static")).args(["--strip-components=1", "-C"]).arg(&prefix));
        prefix
    })
}

/// What a program asks the loader for.
fn loads(program: &Path) -> String {
    said(command("ldd").arg(program))
}

#[test]
fn a_program_in_c_links_the_archive_with_the_systems_sqlite_or_its_own_and_brings_everything_along() {
    let prefix = to_link_with();
    let config = format!("PKG_CONFIG_PATH={}/lib/pkgconfig pkg-config", prefix.display());
    // As the page of the package says.
    let of_system = format!("$({config} --static --cflags --libs littoral)");
    let of_its_own = format!(
        "-I{}/include $({config} --variable=archive littoral) -l:libsqlite3.a $({config} --variable=system littoral)",
        prefix.display()
    );
    for (words, has_sqlite) in [(&of_system, true), (&of_its_own, false)] {
        let place = Place::new();
        compile(&place, "example.c", words);
        let loaded = loads(&place.machine().join("example"));
        assert!(!loaded.contains("liblittoral") && loaded.contains("libsqlite3") == has_sqlite, "{loaded}");
        an_example_goes_on_elsewhere(&place, |place| compile(place, "example.c", words));
    }
    // Names that a program might have, too, are nobody else's.
    let names = said(command("nm").args(["--defined-only", "--extern-only"]).arg(prefix.join("lib/liblittoral.a")));
    let names: Vec<&str> = names.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    assert_eq!(names, ["sqlite3_littoral_init", "sqlite3_littoraldefault_init"]);
    let wanted = said(command("nm").arg("--undefined-only").arg(prefix.join("lib/liblittoral.a")));
    assert!(
        wanted.contains("memcpy") && !wanted.contains("sqlite3_"),
        "the archive wants a SQLite of its own: {wanted}"
    );
}

#[test]
fn a_program_in_c_that_registers_us_keeps_its_other_extensions_and_opens_databases_in_any_way() {
    for (prefix, flags) in [(&*unpacked().prefix, ""), (to_link_with(), "--static")] {
        let place = Place::new();
        let config = format!("PKG_CONFIG_PATH={}/lib/pkgconfig pkg-config", prefix.display());
        let script = room().join("scripts/register.c");
        let words = format!("$({config} {flags} --cflags --libs littoral)");
        let mut program = compile(&place, script.to_str().unwrap(), &words);
        program.current_dir(place.machine()).env("LD_LIBRARY_PATH", prefix.join("lib"));
        assert_eq!(said(&mut program), format!("{}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn the_same_extension_makes_the_same_packages_of_one_version_and_they_hold_it_stripped() {
    let other = tempfile::tempdir().unwrap();
    built_archive();
    let whole = fs::metadata(&built().extension).unwrap().len();
    for kind in ["wheel", "npm", "c", "static"] {
        let packages = [package(kind), made(kind, other.path())];
        let name = packages[0].file_name().unwrap().to_str().unwrap();
        assert!(name.contains(env!("CARGO_PKG_VERSION")), "{name}");
        let bytes = packages.map(|path| fs::read(path).unwrap());
        assert!(bytes[0] == bytes[1], "{kind}: not the same");
        assert!((bytes[0].len() as u64) < whole, "{kind}: {} of {whole} bytes", bytes[0].len());
    }
}

#[test]
fn a_release_is_installed_by_its_script_as_it_is_checked_and_not_at_all_where_it_is_not_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (dist, prefix) = (folder.path().join("dist"), folder.path().join("prefix"));
    built_archive();
    let mut release = command("bash");
    release.arg(room().join("../../bindings/release.sh")).arg(&dist).arg("--built");
    said(release.arg(built().extension.parent().unwrap()));
    let listed = fs::read_to_string(dist.join("SHA256SUMS")).unwrap();
    assert_eq!(listed.lines().count(), 8, "{listed}");
    said(command("sha256sum").current_dir(&dist).args(["--check", "--quiet", "SHA256SUMS"]));
    let install = |from: &[&str]| {
        let mut script = command("sh");
        script.arg(dist.join("install.sh")).arg("--prefix").arg(&prefix).args(from);
        script.env("HOME", folder.path());
        script
    };
    // As whoever has a folder does, and as whoever has a URL.
    said(&mut install(&[]));
    let version = said(command(prefix.join("bin/littoral")).arg("--version"));
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    said(&mut install(&["--from", &format!("file://{}", dist.display())]));
    let load = format!(".load {} sqlite3_littoral_init", prefix.join("lib/liblittoral").display());
    let told = said(command("sqlite3").args([
        "-cmd",
        &load,
        "-cmd",
        ".open :memory:",
        ":memory:",
        "SELECT littoral_version()",
    ]));
    assert_eq!(told.trim(), env!("CARGO_PKG_VERSION"));

    // Debian's own tools read the package.
    let deb = fs::read_dir(&dist)
        .unwrap()
        .map(|one| one.unwrap().path())
        .find(|path| path.extension().is_some_and(|end| end == "deb"));
    let unpacked = folder.path().join("deb");
    said(command("dpkg-deb").arg("--extract").arg(deb.as_ref().unwrap()).arg(&unpacked));
    let fields = said(command("dpkg-deb").arg("--field").arg(deb.unwrap()));
    assert!(
        fields.contains(&format!("Version: {}", env!("CARGO_PKG_VERSION"))) && fields.contains("Depends: libc6 (>= "),
        "{fields}"
    );
    for file in
        ["usr/bin/littoral", "usr/lib/liblittoral.so", "usr/include/littoral.h", "usr/lib/pkgconfig/littoral.pc"]
    {
        assert!(unpacked.join(file).is_file(), "{file}");
    }

    // Homebrew is told of the archive that lies there, and of what it is.
    let formula = fs::read_to_string(dist.join("littoral.rb")).unwrap();
    let said_of = |word: &str| {
        let line =
            formula.lines().find_map(|line| line.trim().strip_prefix(word)?.strip_prefix(" \"")?.strip_suffix('"'));
        line.unwrap_or_else(|| panic!("{word} is not in {formula}")).to_owned()
    };
    let (url, sum) = (said_of("url"), said_of("sha256"));
    let (place, name) = url.rsplit_once('/').unwrap();
    assert_eq!(place, format!("{}/releases/download/v{}", env!("CARGO_PKG_REPOSITORY"), env!("CARGO_PKG_VERSION")));
    assert!(listed.contains(&format!("{sum}  {name}\n")), "{sum} {name}: {listed}");
    assert_eq!(
        (said_of("version"), said_of("homepage")),
        (env!("CARGO_PKG_VERSION").into(), env!("CARGO_PKG_REPOSITORY").into())
    );
    assert!(!formula.contains('@'), "something of it was not filled in: {formula}");
    // What it installs is what the archive holds.
    let held = said(command("tar").arg("tf").arg(dist.join(name)));
    for file in ["bin/littoral", "lib/liblittoral.so", "share/doc/littoral/LICENSE-MIT"] {
        assert!(held.lines().any(|line| line.split_once('/').is_some_and(|(_, path)| path == file)), "{file}: {held}");
    }
    assert!(formula.contains("bin.install \"bin/littoral\"") && formula.contains("lib.install \"lib/liblittoral.so\""));

    // One byte more than was listed.
    let archive = listed.lines().find_map(|line| {
        line.split("  ")
            .nth(1)
            .filter(|name| name.ends_with(".tar.gz") && !["-c-", "-static-"].iter().any(|other| name.contains(other)))
    });
    let mut bytes = fs::read(dist.join(archive.unwrap())).unwrap();
    bytes.push(0);
    fs::write(dist.join(archive.unwrap()), bytes).unwrap();
    fs::remove_dir_all(&prefix).unwrap();
    let refused = install(&[]).output().unwrap();
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("not what SHA256SUMS says"), "{why}");
    assert!(!prefix.exists());
}
