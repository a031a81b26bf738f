#!/usr/bin/env python3
"""Who may depend on whom. Import only leftward:

     types ─┬─ format ──┬─ manifest ─┐
            ├─ ports  ──┼─ jobs   ───┤                 ┌─ ext
            │           ├─ local  ───┼── engine ── vfs ┤
            └─ plan ────┴─ remote ───┘        └────────┴─ cli, bindings

Reads `cargo metadata` and the sources, and refuses:

 1. a workspace member outside the rooms;
 2. a room that depends on one that is not to its left: siblings never meet, stores do not plan, doors pass the engine;
 3. a library outside the rooms that may name it (BRANDS);
 4. a library that docs/decisions/2026-11-20-parts.md does not list for that room, and a listed one that nobody uses;
 5. anything under types, format, plan or ports that needs a C++ compiler, cmake or libclang, or that waits or logs;
 6. a member that does not take the workspace's lints, and unsafe outside the rooms that may hold it;
 7. in the engine, the name of a store's own type outside engine/src/open.rs.

    python3 .ci/layering.py              checks this workspace, after the self-test
    python3 .ci/layering.py --self-test  feeds it broken metadata and expects every refusal
"""

import copy
import fnmatch
import json
import pathlib
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
PARTS = "docs/decisions/2026-11-20-parts.md"

# Room -> the rooms it may depend on. A pattern names many rooms.
STORES = ["engine/manifest", "engine/jobs", "engine/local", "engine/remote"]
BYTES = ["engine/types", "engine/format", "engine/ports"]
# The engine's promises are all that stands to the right of it sees: its stores are opened by the engine alone.
DOORSTEP = ["engine/types", "engine/ports", "engine"]
USES = {
    "engine/types": [],
    "engine/format": ["engine/types"],
    "engine/plan": ["engine/types"],
    "engine/ports": ["engine/types"],
    "engine/manifest": BYTES,
    "engine/jobs": BYTES,
    "engine/local": BYTES,
    # Knows neither pages nor records.
    "engine/remote": ["engine/types", "engine/ports"],
    "engine": [*BYTES, "engine/plan", *STORES],
    "vfs": DOORSTEP,
    "ext": [*DOORSTEP, "vfs"],
    # A program in Rust like any other: it opens databases through the binding.
    "cli": [*DOORSTEP, "vfs", "bindings/rust"],
    "bindings/*": [*DOORSTEP, "vfs", "ext"],
    # Tests and benchmarks go through public doors, and look behind them. Nobody but tests depends on them.
    "tests": ["*"],
    "tests/*": ["*"],
    "bench": ["*"],
}
TESTS = ["tests", "tests/*", "bench"]
# What a room's own tests may use besides.
TEST_USES = {"cli": ["engine", "engine/*"], "engine": ["engine/*"]}

# Library -> the only rooms that may name it.
BRANDS = {
    "heed*": ["engine/manifest"],
    "lmdb*": ["engine/manifest"],
    "rocksdb": ["engine/jobs"],
    "librocksdb*": ["engine/jobs"],
    "object_store": ["engine/remote", *TESTS],
    "minio": ["engine/remote", *TESTS],
    "reqwest": ["engine/remote", *TESTS],
    "hyper*": ["engine/remote", "cli", *TESTS],
    "http": ["engine/remote", *TESTS],
    "libsql*": ["cli", "bindings/*", *TESTS],
    # A second SQLite in one process.
    "rusqlite": [],
    "anyhow": ["cli", *TESTS],
    "clap": ["cli", *TESTS],
    "indicatif": ["cli", *TESTS],
}

LIGHT = ["engine/types", "engine/format", "engine/plan", "engine/ports"]
HEAVY = ["cmake", "bindgen", "clang-sys", "cxx", "cxx-build", "tokio", "tracing", "log", "reqwest", "openssl-sys"]

UNSAFE = [
    "vfs/src/raw/*",
    # Entry points that C calls by name, and the door that they call.
    "vfs/src/lib.rs",
    "ext/src/lib.rs",
    "bindings/c/*",
    # How libsql's SQLite is told of the VFS.
    "bindings/rust/src/entry.rs",
    "engine/manifest/src/open.rs",
    "engine/local/src/tracker/map.rs",
    # libsql's C interface: the database as one consistent reader sees it.
    "cli/src/sqlite/raw.rs",
    # SQLite's lock page moved to where tests can reach it.
    "cli/tests/interrupts.rs",
    "cli/tests/pending_byte.rs",
    "tests/src/lock_page.rs",
]

BRAND_OPENER = "engine/src/open.rs"
BRAND_NAMES = re.compile(r"\blittoral_(manifest|jobs)\b|\blittoral_remote::(open|open_in|Directory)\b")


def matches(room, patterns):
    return any(fnmatch.fnmatchcase(room, pattern) for pattern in patterns)


def rooms_of(metadata):
    """Package id -> room, for the workspace's members."""
    top = metadata["workspace_root"]
    members = set(metadata["workspace_members"])
    return {
        package["id"]: str(pathlib.PurePath(package["manifest_path"]).parent.relative_to(top))
        for package in metadata["packages"]
        if package["id"] in members
    }


def check_metadata(metadata, parts):
    """Refusals, as sentences."""
    found = []
    rooms = rooms_of(metadata)
    by_name = {package["name"]: rooms[package["id"]] for package in metadata["packages"] if package["id"] in rooms}
    used = set()
    for package in metadata["packages"]:
        room = rooms.get(package["id"])
        if room is None:
            continue
        pattern = next((pattern for pattern in USES if fnmatch.fnmatchcase(room, pattern)), None)
        if pattern is None:
            found.append(f"{room}: no room of this house (rooms: {', '.join(USES)})")
            continue
        for dependency in package["dependencies"]:
            name, in_tests = dependency["name"], dependency["kind"] == "dev"
            other = by_name.get(name)
            if other is not None:
                allowed = USES[pattern] + (["tests/*", *TEST_USES.get(room, [])] if in_tests else [])
                itself = in_tests and other == room
                if matches(other, TESTS) and not in_tests and not matches(room, TESTS):
                    found.append(f"{room} depends on {other}: only tests depend on tests")
                elif not itself and not matches(other, allowed):
                    found.append(f"{room} depends on {other}, which is not to its left")
                continue
            used.add(name)
            for brand, where in BRANDS.items():
                if fnmatch.fnmatchcase(name, brand) and not matches(room, where):
                    found.append(f"{room} names {name}, which belongs to {', '.join(where) or 'nobody'}")
            listed = parts.get(name)
            if listed is None:
                found.append(f"{room} brings {name}, and {PARTS} does not say what for")
            elif not matches(room, listed) and not (in_tests or matches(room, TESTS)):
                found.append(f"{room} brings {name}, and {PARTS} lists it for {', '.join(listed)} only")
    found += [f"{PARTS} lists {name}, and nobody uses it" for name in sorted(set(parts) - used)]
    return found + check_light(metadata, rooms)


def check_light(metadata, rooms):
    """What the rooms that must build in seconds pull in."""
    found = []
    names = {package["id"]: package["name"] for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    for start, room in rooms.items():
        if room not in LIGHT:
            continue
        seen, waiting = {start}, [(start, ())]
        while waiting:
            at, way = waiting.pop()
            if names[at] in HEAVY:
                found.append(f"{room} pulls in {names[at]} by way of {' > '.join(way) or 'itself'}")
                continue
            for dependency in nodes[at]["deps"]:
                kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
                if kinds != {"dev"} and dependency["pkg"] not in seen:
                    seen.add(dependency["pkg"])
                    waiting.append((dependency["pkg"], (*way, names[dependency["pkg"]])))
    return found


def check_source(path, text):
    """Refusals of one .rs file or member's Cargo.toml, by its path in the checkout."""
    found = []
    if path.endswith("Cargo.toml"):
        if re.search(r"^\[package\]", text, re.M) and not re.search(r"^\[lints\]\s+workspace = true", text, re.M):
            found.append(f"{path}: does not take the workspace's lints ([lints] workspace = true)")
        return found
    if re.search(r"^\s*#!?\[(?:allow|expect)\([^)]*\bunsafe_code\b", text, re.M) and not matches(path, UNSAFE):
        found.append(f"{path}: unsafe is at home in {', '.join(UNSAFE)}")
    if path.startswith("engine/src/") and path != BRAND_OPENER:
        code = re.sub(r"//.*", "", text)
        named = BRAND_NAMES.search(code)
        if named:
            found.append(f"{path}: names {named[0]}, which only {BRAND_OPENER} knows")
    return found


def read_parts(text):
    """Library -> rooms, from the table of the parts."""
    parts = {}
    for row in re.findall(r"^\| `([\w-]+)` \| ([^|]+) \| ([^|]+) \|", text, re.M):
        parts[row[0]] = [room.strip().strip("`") for room in row[1].split(",")]
    return parts


def sources(rooms):
    tracked = ask("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    manifests = {str(pathlib.PurePath(room) / "Cargo.toml") for room in rooms}
    for name in tracked:
        path = TOP / name
        if (name.endswith(".rs") or name in manifests) and path.is_file():
            yield name, path.read_text()


def ask(*command):
    answer = subprocess.run(command, cwd=TOP, capture_output=True, text=True)
    if answer.returncode != 0:
        sys.exit(f"layering: {' '.join(command)}: {answer.stderr}")
    return answer.stdout


def check_workspace():
    host = re.search(r"^host: (.+)$", ask("rustc", "-vV"), re.M)[1]
    metadata = json.loads(ask("cargo", "metadata", "--format-version=1", "--all-features", "--locked", f"--filter-platform={host}"))
    rooms = rooms_of(metadata)
    found = check_metadata(metadata, read_parts((TOP / PARTS).read_text()))
    for path, text in sources(rooms.values()):
        found += check_source(path, text)
    return len(rooms), found


# The self-test: a small sound house, and one break at a time.

def sound():
    def package(room, *dependencies):
        name = "littoral-" + room.replace("/", "-")
        return {"id": name, "name": name, "manifest_path": f"/house/{room}/Cargo.toml",
                "dependencies": [{"name": name, "kind": kind} for name, kind in dependencies]}

    packages = [
        package("engine/types", ("thiserror", None)),
        package("engine/format", ("littoral-engine-types", None), ("zstd", None)),
        package("engine/ports", ("littoral-engine-types", None)),
        package("engine/plan", ("littoral-engine-types", None)),
        package("engine/manifest", ("littoral-engine-format", None), ("heed", None), ("littoral-tests-s3", "dev")),
        package("engine/remote", ("littoral-engine-ports", None), ("object_store", None)),
        package("engine", ("littoral-engine-manifest", None), ("littoral-engine-remote", None), ("tokio", None)),
        package("vfs", ("littoral-engine", None)),
        package("cli", ("littoral-engine", None), ("littoral-vfs", None), ("anyhow", None), ("libsql", None)),
        package("tests/s3", ("littoral-engine-types", None), ("object_store", None)),
    ]
    outside = ["thiserror", "zstd", "heed", "object_store", "tokio", "anyhow", "libsql", "cmake"]
    nodes = [{"id": package["id"], "deps": [
        {"pkg": dependency["name"], "dep_kinds": [{"kind": dependency["kind"]}]} for dependency in package["dependencies"]
    ]} for package in packages] + [{"id": name, "deps": []} for name in outside]
    return {
        "workspace_root": "/house",
        "workspace_members": [package["id"] for package in packages],
        "packages": packages + [{"id": name, "name": name, "manifest_path": f"/elsewhere/{name}/Cargo.toml", "dependencies": []}
                                for name in outside],
        "resolve": {"nodes": nodes},
    }


SOUND_PARTS = """
| `thiserror` | engine/*, engine | errors |
| `zstd` | engine/format | smaller |
| `heed` | engine/manifest | LMDB |
| `object_store` | engine/remote | S3 |
| `tokio` | engine | waiting |
| `anyhow` | cli | errors for people |
| `libsql` | cli | SQLite |
"""


def self_test():
    parts = read_parts(SOUND_PARTS)
    assert check_metadata(sound(), parts) == [], check_metadata(sound(), parts)

    def refused(why, room, name, kind=None, parts=parts, resolved=True):
        house = copy.deepcopy(sound())
        package = next(package for package in house["packages"] if package["manifest_path"] == f"/house/{room}/Cargo.toml")
        package["dependencies"].append({"name": name, "kind": kind})
        if resolved:
            node = next(node for node in house["resolve"]["nodes"] if node["id"] == package["id"])
            node["deps"].append({"pkg": name, "dep_kinds": [{"kind": kind}]})
        found = check_metadata(house, parts)
        assert any(why in one for one in found), f"{room} + {name} passed for {why!r}: {found}"

    left = "not to its left"
    for room, name in [
        ("engine/types", "littoral-engine-format"), ("engine/format", "littoral-engine-ports"),
        ("engine/format", "littoral-engine-plan"), ("engine/plan", "littoral-engine-format"),
        ("engine/ports", "littoral-engine-plan"), ("engine/manifest", "littoral-engine-remote"),
        ("engine/remote", "littoral-engine-manifest"), ("engine/remote", "littoral-engine-format"),
        ("engine/manifest", "littoral-engine-plan"), ("engine/remote", "littoral-engine"),
        ("engine", "littoral-vfs"), ("engine", "littoral-cli"), ("vfs", "littoral-engine-remote"),
        ("vfs", "littoral-engine-manifest"), ("vfs", "littoral-cli"), ("cli", "littoral-engine-manifest"),
        ("cli", "littoral-engine-plan"),
    ]:
        refused(left, room, name, resolved=False)
    refused(left, "engine/manifest", "littoral-engine-remote", "dev", resolved=False)
    refused(left, "engine/manifest", "littoral-engine-remote", "build", resolved=False)
    refused("only tests depend on tests", "engine", "littoral-tests-s3", resolved=False)
    for room, name in [
        ("engine", "heed"), ("engine/remote", "heed"), ("tests/s3", "heed"), ("engine", "object_store"), ("cli", "object_store"),
        ("engine", "minio"), ("cli", "rocksdb"), ("engine/manifest", "rocksdb"), ("engine", "libsql"), ("vfs", "libsql-sys"),
        ("engine", "anyhow"), ("engine/manifest", "anyhow"), ("cli", "rusqlite"), ("vfs", "reqwest"),
    ]:
        refused("belongs to", room, name, parts=parts | {name: ["*"]}, resolved=False)
    refused("belongs to", "engine", "libsql", "dev", resolved=False)
    refused("does not say what for", "engine", "left-pad", resolved=False)
    refused("lists it for", "engine/manifest", "zstd", resolved=False)
    refused("pulls in cmake", "engine/format", "cmake", "build")
    refused("pulls in tokio", "engine/ports", "tokio")
    assert any("nobody uses it" in one for one in check_metadata(sound(), parts | {"left-pad": ["cli"]}))

    house = copy.deepcopy(sound())
    house["packages"][0]["manifest_path"] = "/house/engine/utils/Cargo.toml"
    assert any("no room" in one for one in check_metadata(house, parts))

    lints, unsafe = "[lints]\nworkspace = true\n", "#![allow(missing_docs, unsafe_code)]\n"
    for path, text, why in [
        ("cli/Cargo.toml", "[package]\n", "lints"),
        ("engine/src/exec/x.rs", unsafe, "unsafe is at home"),
        ("engine/src/exec/x.rs", "use littoral_manifest::LmdbManifest;", "only engine/src/open.rs knows"),
        ("engine/src/exec/x.rs", "littoral_remote::open(url)", "only engine/src/open.rs knows"),
    ]:
        found = check_source(path, text)
        assert any(why in one for one in found), f"{path} passed for {why!r}"
    for path, text in [
        ("cli/Cargo.toml", "[package]\n" + lints), ("engine/manifest/src/open.rs", unsafe), ("vfs/src/raw/db.rs", unsafe),
        ("engine/src/open.rs", "use littoral_manifest::LmdbManifest;"), ("engine/src/x.rs", "// littoral_manifest keeps it"),
    ]:
        assert check_source(path, text) == [], check_source(path, text)


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        print("layering: every break was refused")
        sys.exit()
    count, refusals = check_workspace()
    for refusal in refusals:
        print(f"layering: {refusal}", file=sys.stderr)
    print(f"layering: {count} rooms, {len(refusals)} refusals")
    sys.exit(1 if refusals else 0)
