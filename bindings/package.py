#!/usr/bin/env python3
"""Makes the packages, out of what was built before, with nothing but Python's standard library and the linker's tools (`strip`, `ld`, `objcopy`, `ar`).

    python3 bindings/package.py KIND BUILT FOLDER

BUILT is the folder that holds `liblittoral.so`, `littoral` and, for KIND static, `liblittoral.a`, as cargo's `target/release` does. The package is put
into FOLDER, and its path is printed. The version is the workspace's (Cargo.toml). The same input makes the same bytes. KIND is one of

    wheel      for Python: pip install takes it
    npm        for Node: npm install takes it
    c          header, pkg-config file and extension, to be unpacked under a prefix
    static     header, pkg-config file and an archive to link with, for programs that bring everything along
    archive    the command line and the extension
    deb        the command line, the extension and the header for Debian and its kin
    formula    a formula for Homebrew, of the archives that lie in FOLDER already
"""

import base64
import gzip
import hashlib
import io
import json
import pathlib
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent
LICENSES = ("LICENSE-APACHE", "LICENSE-MIT")
LIBRARY = "liblittoral.so"
ARCHIVE = "liblittoral.a"
# What SQLite, or a program, calls: an archive gives no other names away.
ENTRIES = ("sqlite3_littoral_init", "sqlite3_littoraldefault_init")
PROGRAM = "littoral"
# As others call the processors.
NODES = {"x86_64": "x64", "aarch64": "arm64"}
DEBIANS = {"x86_64": "amd64", "aarch64": "arm64"}
BREWS = {"x86_64": "intel", "aarch64": "arm"}


def version():
    return re.search(r'^version = "(.+)"', (TOP / "Cargo.toml").read_text(), re.M)[1]


def stripped(program):
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder) / "copy"
        subprocess.run(["strip", "--strip-unneeded", "-o", copy, program], check=True)
        return copy.read_bytes()


def closed(archive):
    """An archive of one object whose only names are the entry points: what it is made of meets nothing of the program's, as another zstd or LMDB, or
    another library that was written in Rust."""
    with tempfile.TemporaryDirectory() as folder:
        one, into = pathlib.Path(folder) / "littoral.o", pathlib.Path(folder) / ARCHIVE
        subprocess.run(["ld", "-r", "-o", one, *(f"--undefined={name}" for name in ENTRIES), archive], check=True)
        keep = [f"--keep-global-symbol={name}" for name in ENTRIES]
        # Rust's own library brings its parts as LLVM's code, too: of several that lie in one section nobody can make anything.
        drop = [f"--remove-section={name}" for name in (".llvmbc", ".llvmcmd")]
        subprocess.run(["objcopy", "--strip-debug", *drop, *keep, one], check=True)
        # D: neither times nor users.
        subprocess.run(["ar", "rcD", into, one], check=True)
        return into.read_bytes()


def libc(library):
    """The oldest C library that has all that is asked of it."""
    return max((int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", library))


def tarred(files):
    """`files`: name -> (bytes, whether it is run or loaded)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (text, runs) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755 if runs else 0o644
            archive.addfile(entry, io.BytesIO(text))
    return gzip.compress(packed.getvalue(), compresslevel=6, mtime=0)


def written(path, text):
    path.write_bytes(text)
    return path


def wheel(built, folder):
    library = stripped(built / LIBRARY)
    # SQLite calls the extension, and Python does not: any Python will do.
    tag = "py3-none-manylinux_{}_{}_{}".format(*libc(library), platform.machine())
    info = f"littoral-{version()}.dist-info"
    metadata = [
        "Metadata-Version: 2.1",
        "Name: littoral",
        f"Version: {version()}",
        "Summary: SQLite databases that live in an object store",
        "License: MIT OR Apache-2.0",
        "Requires-Python: >=3.9",
        "Classifier: Operating System :: POSIX :: Linux",
        "Classifier: Typing :: Typed",
        "Description-Content-Type: text/markdown",
        "",
        (HERE / "python/README.md").read_text(),
    ]
    files = {f"littoral/{path.name}": path.read_bytes() for path in sorted((HERE / "python/littoral").iterdir()) if path.is_file()}
    files[f"littoral/{LIBRARY}"] = library
    files |= {f"{info}/licenses/{name}": (TOP / name).read_bytes() for name in LICENSES}
    files[f"{info}/METADATA"] = "\n".join(metadata).encode()
    files[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: littoral\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    digest = lambda text: base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
    record = [f"{name},sha256={digest(text)},{len(text)}" for name, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"littoral-{version()}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            archive.writestr(entry, text)
    return path


def npm(built, folder):
    said = json.loads((HERE / "node/package.json").read_text())
    said |= {"version": version(), "cpu": [NODES.get(platform.machine(), platform.machine())]}
    files = {f"package/{name}": ((HERE / "node" / name).read_bytes(), False) for name in (*said["files"], "README.md") if name != LIBRARY}
    files |= {f"package/{name}": ((TOP / name).read_bytes(), False) for name in LICENSES}
    files["package/package.json"] = (json.dumps(said, indent=2).encode() + b"\n", False)
    files[f"package/{LIBRARY}"] = (stripped(built / LIBRARY), True)
    return written(folder / f"littoral-{version()}.tgz", tarred(files))


def under_a_prefix(built, programs, header, library=LIBRARY):
    """What lies where below a prefix."""
    files = {f"lib/{library}": (stripped(built / library), True) if library == LIBRARY else (closed(built / library), False)}
    if programs:
        files[f"bin/{PROGRAM}"] = (stripped(built / PROGRAM), True)
    documents = [TOP / name for name in LICENSES]
    if header:
        config = (HERE / f"c/{'littoral' if library == LIBRARY else 'littoral-static'}.pc.in").read_text().replace("@VERSION@", version())
        files["include/littoral.h"] = ((HERE / "c/littoral.h").read_bytes(), False)
        files["lib/pkgconfig/littoral.pc"] = (config.encode(), False)
        documents += [HERE / "c/README.md", HERE / "c/example.c"]
    return files | {f"share/doc/littoral/{path.name}": (path.read_bytes(), False) for path in documents}


def unpacked_as(name, files, folder):
    files = {f"{name}/{path}": file for path, file in files.items()}
    return written(folder / f"{name}.tar.gz", tarred(files))


def c(built, folder):
    return unpacked_as(f"littoral-c-{version()}-linux-{platform.machine()}", under_a_prefix(built, False, True), folder)


def static(built, folder):
    name = f"littoral-static-{version()}-linux-{platform.machine()}"
    return unpacked_as(name, under_a_prefix(built, False, True, ARCHIVE), folder)


def archive(built, folder):
    return unpacked_as(f"littoral-{version()}-linux-{platform.machine()}", under_a_prefix(built, True, False), folder)


def deb(built, folder):
    processor = DEBIANS.get(platform.machine(), platform.machine())
    files = under_a_prefix(built, True, True)
    needs = max(libc(files[name][0]) for name in (f"lib/{LIBRARY}", f"bin/{PROGRAM}"))
    control = [
        "Package: littoral",
        f"Version: {version()}",
        f"Architecture: {processor}",
        "Maintainer: Littoral <https://github.com/littoral-db/littoral>",
        "Depends: libc6 (>= {}.{}), libgcc-s1".format(*needs),
        "Section: database",
        "Priority: optional",
        "Description: SQLite databases that live in an object store",
        " The command line `littoral`, the loadable extension, and the header for C.",
        "",
    ]
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": tarred({"./control": ("\n".join(control).encode(), False)}),
        "data.tar.gz": tarred({f"./usr/{path}": file for path, file in files.items()}),
    }
    packed = b"!<arch>\n"
    for name, text in members.items():
        packed += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(text):<10}`\n".encode() + text + b"\n" * (len(text) % 2)
    return written(folder / f"littoral_{version()}_{processor}.deb", packed)


def formula(_, folder):
    repository = re.search(r'^repository = "(.+)"', (TOP / "Cargo.toml").read_text(), re.M)[1]
    text = (HERE / "homebrew/littoral.rb.in").read_text()
    blocks = []
    for processor, word in BREWS.items():
        path = folder / f"littoral-{version()}-linux-{processor}.tar.gz"
        if path.is_file():
            url = f"{repository}/releases/download/v{version()}/{path.name}"
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            blocks.append(f'  on_{word} do\n    url "{url}"\n    sha256 "{digest}"\n  end\n')
    if not blocks:
        sys.exit(f"package.py: {folder} holds no archive of version {version()}: make KIND archive first")
    for name, value in {"VERSION": version(), "REPOSITORY": repository, "ARCHIVES": "\n".join(blocks).rstrip("\n")}.items():
        text = text.replace(f"@{name}@", value)
    return written(folder / "littoral.rb", text.encode())


if __name__ == "__main__":
    kinds = {kind.__name__: kind for kind in (wheel, npm, c, static, archive, deb, formula)}
    if len(sys.argv) != 4 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    into = pathlib.Path(sys.argv[3])
    into.mkdir(parents=True, exist_ok=True)
    print(kinds[sys.argv[1]](pathlib.Path(sys.argv[2]), into))
