#!/usr/bin/env python3
"""The tours of README and docs, run again: what they show is what happens.

    python3 .ci/tour.py FOLDER [PAGE...]           runs every "$ " line of every tour with what cargo built in FOLDER, and compares
    python3 .ci/tour.py FOLDER [PAGE...] --write   writes down what it said

A tour is a block of a page that `<!-- tour -->` stands before. A page is gone through in one shell, in a folder of the page's own, by somebody who has installed
the command line and the extension under ~/.local and the packages for Python, Node and C; a block with a file's name behind its language is that file. Where a tour names `s3://`, a real S3 server
(tests/s3/server.sh) is there, with those buckets. Numbers, times and hashes differ from run to run and are not compared; words are. A line
`...` stands for any lines, and `…` for any letters.

Every other command that a page names, in its text or in a block that cannot be run, is compared with what the program says of its commands and options;
Python and a unit for systemd that are not run are read at least.
"""

import ast
import configparser
import difflib
import fcntl
import getpass
import os
import pathlib
import random
import re
import secrets
import select
import shlex
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time

import snippets

TOP = pathlib.Path(__file__).resolve().parent.parent
# How the temporary folder, this machine, and what listens on it are called in the pages.
FOLDER, HOST, USER = "/srv/app", "laptop", "app"
LISTENS, OBJECT_STORE = "127.0.0.1:9464", "127.0.0.1:9000"
# A bucket that a page names because it is not there.
MISSING = {"photos"}
# All pages together; and one command, which hangs then.
SECONDS_MAX, COMMAND_SECONDS_MAX = 300, 60
# Below those that the kernel hands out by itself; tests/s3 takes its own from them, too, under the same locks.
PORTS, PORT_STEP = range(18000, 32000, 16), 16


def is_free(port):
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class ObjectStore:
    """A real S3 server, for all pages. Each has buckets of its own, which stand for those that it names."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        locks = pathlib.Path(tempfile.gettempdir()) / "littoral-s3-ports"
        locks.mkdir(exist_ok=True)
        for port in random.sample(PORTS, len(PORTS)):
            self.lock = open(locks / str(port), "w")
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            if all(is_free(port + offset) for offset in range(PORT_STEP)):
                break
        self.authority = f"127.0.0.1:{port}"
        self.server = subprocess.Popen(["bash", TOP / "tests/s3/server.sh", f"{self.folder.name}/s3", str(port), "--while-stdin"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        since = time.monotonic()
        # Healthy comes before able: only a bucket shows that all its parts have found each other.
        while not self.make("ready"):
            if self.server.poll() is not None or time.monotonic() - since > 240:
                sys.exit("tour: no S3 server came up: tests/s3/server.sh DIR PORT says why")
            time.sleep(0.05)

    def bucket(self, length):
        """A fresh one, with a name so long that tables of a page keep their width."""
        name = "".join(random.choices(string.ascii_lowercase, k=length))
        if not self.make(name):
            sys.exit(f"tour: no bucket {name} could be made")
        return name

    def make(self, name):
        made = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "testkey:testsecret",
                               f"http://{self.authority}/{name}"], capture_output=True, text=True)
        return made.stdout == "200"

    def environment(self):
        return {"AWS_ACCESS_KEY_ID": "testkey", "AWS_SECRET_ACCESS_KEY": "testsecret", "AWS_ENDPOINT_URL_S3": f"http://{self.authority}", "AWS_REGION": "us-east-1"}

    def end(self):
        self.server.stdin.close()
        self.server.wait()
        self.lock.close()
        self.folder.cleanup()


def environment(binaries, folder, text):
    """A machine that has what docs/hosts/README.md says how to get, and a Python whose sqlite3 loads extensions."""
    local, programs, path = folder / "home/.local", folder / "programs", []
    for part in ["bin", "lib"]:
        (local / part).mkdir(parents=True)
    (local / "bin/littoral").symlink_to(f"{binaries}/littoral")
    (local / "lib/liblittoral.so").symlink_to(f"{binaries}/liblittoral.so")
    programs.mkdir()
    (programs / "python3").symlink_to("/usr/bin/python3")
    for kind in ["python/littoral", "node"]:
        package = shutil.copytree(TOP / "bindings" / kind, folder / "packages" / kind)
        (package / "liblittoral.so").symlink_to(f"{binaries}/liblittoral.so")
    (folder / "packages/node").rename(folder / "packages/littoral")
    modules = [str(folder / "packages")]
    if re.search(r"^\$ node ", text, re.M):
        node = subprocess.run(["bash", TOP / "tests/hosts/programs.sh", "node"], check=True, capture_output=True, text=True).stdout.strip()
        path, modules = [f"{node}/bin"], [*modules, f"{node}/node_modules"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LITTORAL_", "AWS_", "PYTHON", "NODE_"))}
    return kept | {
        "PATH": ":".join([str(programs), str(local / "bin"), *path, os.environ["PATH"]]),
        "HOME": str(folder / "home"),
        "COLUMNS": "110",
        "LD_LIBRARY_PATH": str(local / "lib"),
        "NODE_PATH": ":".join(modules),
        "PYTHONPATH": str(folder / "packages/python"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class Shell:
    """One shell for a page: what a command sets, where it goes and what it leaves running is there for the next."""

    def __init__(self, folder, environment):
        self.bash = subprocess.Popen(["bash", "--norc"], cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)

    def run(self, command):
        """What it said, and its exit code; `None` where it did not end."""
        end = secrets.token_hex(16)
        self.bash.stdin.write(f"eval {shlex.quote(command)} </dev/null; printf '\\n%s %d\\n' {end} $?\n".encode())
        self.bash.stdin.flush()
        said, until = b"", time.monotonic() + COMMAND_SECONDS_MAX
        while not (ended := re.search(rf"\n{end} (\d+)\n".encode(), said)):
            if not select.select([self.bash.stdout], [], [], max(0, until - time.monotonic()))[0]:
                return said.decode(errors="replace"), None
            part = os.read(self.bash.stdout.fileno(), 65536)
            if not part:
                return said.decode(errors="replace"), None
            said += part
        return said[:ended.start()].decode(errors="replace"), int(ended[1])

    def end(self):
        os.killpg(self.bash.pid, signal.SIGKILL)
        self.bash.wait()
        self.bash.stdin.close()
        self.bash.stdout.close()


class Machine:
    """Where a page is gone through."""

    def __init__(self, page, binaries, buckets, store):
        self.temporary = tempfile.TemporaryDirectory()
        machine = pathlib.Path(self.temporary.name)
        self.folder = machine / "app"
        self.folder.mkdir()
        # What a page says, and what it is here: first those that the other way round a pattern would find in others.
        self.names = [(FOLDER, str(self.folder)), (LISTENS, f"127.0.0.1:{free_port()}")]
        self.buckets = {name: store.bucket(len(name)) for name in sorted(buckets)}
        self.only_there = [("~", str(machine / "home"))] + ([(OBJECT_STORE, store.authority)] if store else [])
        self.shell = Shell(self.folder, environment(binaries, machine, page) | (store.environment() if store else {}))

    def here(self, text):
        for told, mine in self.names:
            text = text.replace(told, mine)
        return re.sub(r"s3://([\w.-]+)", lambda match: f"s3://{self.buckets.get(match[1], match[1])}", text)

    def there(self, text):
        for told, mine in self.names + self.only_there:
            text = text.replace(mine, told)
        for told, mine in [*self.buckets.items(), (HOST, socket.gethostname()), (USER, getpass.getuser())]:
            text = re.sub(rf"(?<![\w.-]){re.escape(mine)}(?![\w.-])", told, text)
        return text

    def write(self, name, body):
        (self.folder / name).write_text(self.here(body))

    def run(self, command):
        """The lines that it says."""
        said, code = self.shell.run(self.here(command))
        lines = [line.rstrip() for line in self.there(said).splitlines()]
        if code is None:
            sys.exit("\n".join([f"tour: $ {command}", *lines, f"tour: that ended the shell, or did not end within {COMMAND_SECONDS_MAX} s"]))
        return [*lines, f"(exit code {code})"] if code != 0 else lines

    def end(self):
        self.shell.end()
        self.temporary.cleanup()


def words(lines):
    """What must not differ."""
    masked = []
    for line in lines:
        line = re.sub(r"\b[0-9a-f]{16,}\b", "#", line)
        line = re.sub(r"\d[\d,.:TZ-]*( ?(B|kB|MB|GB|ms|s|min))?\b", "#", line)
        line = re.sub(r"(request|write|read|page|record|blob|row|delta|frame|link|object|commit|pin)s\b", r"\1", line)
        masked.append(" ".join(line.split()))
    return masked


def is_as_shown(shown, said):
    """Whether words are those of a page, with its `...` and `…`."""
    pattern = "".join(r"(?:.*\n)*" if line == "..." else ".*".join(map(re.escape, line.split("…"))) + r"\n" for line in words(shown))
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in words(said))) is not None


def commands(body):
    """(command, lines that it is shown to say): a command goes on in the next line where a quote is open, or behind a backslash."""
    found, goes_on = [], False
    for line in body.splitlines():
        if goes_on:
            found[-1][0] += "\n" + line
        elif line.startswith("$ "):
            found.append([line[2:], []])
        else:
            found[-1][1].append(line)
            continue
        goes_on = found[-1][0].count("'") % 2 == 1 or found[-1][0].count('"') % 2 == 1 or line.endswith("\\")
    return found


def buckets_of(text):
    return {bucket for block in snippets.snippets(text)[0] if block.mark == "tour" or block.file for bucket in re.findall(r"s3://([\w.-]+)", block.body)} - MISSING


def tour(page, binaries, store, write):
    text = page.read_text()
    name = str(page.relative_to(TOP))
    blocks, _ = snippets.snippets(text)
    mine = [block for block in blocks if block.mark == "tour" or block.file is not None]
    differences, kept, end = [], [], 0
    machine = Machine(text, binaries, buckets_of(text), store)
    try:
        for block in mine:
            if block.mark != "tour":
                machine.write(block.file, block.body)
                continue
            shown, found, masked = [], [], ([], [])
            for command, expected in commands(block.body):
                said = machine.run(command)
                told = [f"$ {line}" if at == 0 else line for at, line in enumerate(command.split("\n"))]
                is_same = is_as_shown(expected, said)
                found += told + (expected if is_same and any("…" in line or line == "..." for line in expected) else said)
                masked[0].extend(told + words(expected))
                masked[1].extend(told + words(expected if is_same else said))
            kept += [text[end:block.start], "".join(f"{block.indent}{line}".rstrip() + "\n" for line in found)]
            end = block.end
            differences += [line.rstrip() for line in difflib.unified_diff(*masked, f"{name}:{block.line}", "now", lineterm="", n=1)]
    finally:
        machine.end()
    if write:
        page.write_text("".join(kept) + text[end:])
        return []
    return differences


class Door:
    """What the program says of its own commands."""

    def __init__(self, binaries):
        self.program, self.told = f"{binaries}/littoral", {}

    def help(self, *verbs):
        if verbs not in self.told:
            done = subprocess.run([self.program, "help", *verbs], capture_output=True, text=True)
            self.told[verbs] = done.stdout if done.returncode == 0 else None
        return self.told[verbs]

    def why_not(self, command):
        """What is wrong with a command line, as far as its commands' and options' names go."""
        words = re.split(r"\s+", command.strip())[1:]
        verbs = []
        for word in words:
            if re.fullmatch(r"[a-z][a-z-]*", word) and re.search(rf"^  {word}(\s|$)", self.help(*verbs) or "", re.M):
                verbs.append(word)
            elif not word.startswith("--"):
                break
        if not verbs and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
            return f"there is no command {words[0]}"
        known = set(re.findall(r"--[a-z][a-z_-]*", self.help(*verbs)))
        for option in re.findall(r"(?:(?<=\s)|^)--[a-z][a-z_-]*", command):
            if option not in known | {"--help", "--version"}:
                return f"littoral {' '.join(verbs)} has no option {option}"
        return None


def named(text):
    """The command lines that a page's text names, and those of blocks that are not run: (line, command)."""
    blocks, _ = snippets.snippets(text)
    prose, found = text, []
    for block in reversed(blocks):
        prose = prose[:block.start] + "\n" * block.body.count("\n") + prose[block.end:]
        if block.mark != "tour":
            shell = block.body.replace("\\\n", " ")
            found += [(block.line, line) for line in re.findall(r"(?:^|(?<!-p)[\s/$(])(littoral (?!=)[^\n|>;)]*)", shell, re.M) if block.language in ("sh", "ini", "console")]
    for match in re.finditer(r"`(littoral [^`]+)`", prose):
        found.append((prose[:match.start()].count("\n") + 1, match[1].replace("\\|", "|").split(" | ")[0].replace("\n", " ")))
    return found


def unread(block):
    """What is wrong with a snippet, as far as its language can tell without running it."""
    try:
        if block.language == "python":
            ast.parse(block.body)
        elif block.language == "ini":
            configparser.ConfigParser(strict=False).read_string(block.body)
    except (SyntaxError, configparser.Error) as error:
        return str(error)
    return None


def named_commands(binaries):
    """Every page's commands that are not run, against the program."""
    door, found, tried = Door(binaries), [], 0
    for path in pages():
        name, text = str(path.relative_to(TOP)), path.read_text()
        for line, command in named(text):
            tried += 1
            why = door.why_not(command)
            if why is not None:
                found.append(f"{name}:{line}: {command}: {why}")
        found += [f"{name}:{block.line}: {why}" for block in snippets.snippets(text)[0] if (why := unread(block))]
    print(f"tour: {tried} commands that pages name are there: {'no' if found else 'yes'}")
    return found


def pages():
    tracked = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"], cwd=TOP, check=True, capture_output=True, text=True).stdout.split()
    return [TOP / name for name in tracked if snippets.PAGES.match(name) and not name.startswith("docs/decisions/")]


def main(binaries, chosen, write):
    binaries = os.path.realpath(binaries)
    since, differences = time.monotonic(), []
    through = [TOP / page for page in chosen] or [page for page in pages() if any(block.mark == "tour" for block in snippets.snippets(page.read_text())[0])]
    store = ObjectStore() if any(buckets_of(page.read_text()) for page in through) else None
    try:
        for page in through:
            began = time.monotonic()
            found = tour(page, binaries, store, write)
            differences += found
            print(f"tour: {page.relative_to(TOP)}: {'differs' if found else 'written' if write else 'as it shows it'}, {time.monotonic() - began:.0f} s", flush=True)
    finally:
        if store:
            store.end()
    if not chosen:
        differences += named_commands(binaries)
    took = time.monotonic() - since
    if took > SECONDS_MAX:
        differences.append(f"tour: all pages took {took:.0f} s, and are to take {SECONDS_MAX} at most")
    return differences


def self_test():
    assert commands("$ a 'b\nc'\nd\n$ e \\\n  f\n") == [["a 'b\nc'", ["d"]], ["e \\\n  f", []]]
    assert is_as_shown(["at 1.2 of 3 B", "...", "last…words"], ["at 7.8 of 12 kB", "x", "y", "last of all words"])
    assert is_as_shown(["..."], []) and is_as_shown([], []) and is_as_shown(["2 pages"], ["1 page"])
    for shown, said in [(["a"], ["b"]), (["a"], []), ([], ["a"]), (["...", "a"], ["a", "b"]), (["a…c"], ["ab"]), (["(exit code 3)"], [])]:
        assert not is_as_shown(shown, said), (shown, said)
    page = "`littoral a b`, `x`\n\n<!-- not run: for the test -->\n```sh\nlittoral c --d | littoral e\n```\n"
    assert named(page) == [(4, "littoral c --d "), (4, "littoral e"), (1, "littoral a b")], named(page)


if __name__ == "__main__":
    self_test()
    said = [word for word in sys.argv[1:] if word != "--write"]
    if not said:
        sys.exit(__doc__)
    differences = main(said[0], said[1:], "--write" in sys.argv)
    print("\n".join([*differences, f"tour: {'differs' if differences else 'as the pages show it'}"]))
    sys.exit(1 if differences else 0)
