#!/usr/bin/env python3
"""The tours of README and docs, run again: what they show is what happens.

    python3 .ci/tour.py FOLDER [PAGE...]           runs every "$ " line of every tour with what cargo built in FOLDER, and compares
    python3 .ci/tour.py FOLDER [PAGE...] --write   writes down what it said

A tour is a block of a page that `<!-- tour -->` stands before. The blocks of a page are run one after the other, in a folder of the page's own; a
block with a file's name behind its language is that file. Python finds the package `littoral` there. Numbers, times and hashes differ from run to run and are
not compared; words are.
"""

import difflib
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
TOUR = "<!-- tour -->"
BLOCK = re.compile(r"^(<!-- tour -->\n+)?```(\w+)(?: (\S+))?\n(.*?)^```", re.M | re.S)
# How the temporary folder and this machine are called in the pages.
FOLDER, HOST = "/srv/app", "laptop"
# All pages together.
SECONDS_MAX = 120


def environment(binaries, folder):
    """A machine that has `littoral`, a Python whose sqlite3 loads extensions, and the package for it."""
    programs = folder / "programs"
    programs.mkdir()
    package = shutil.copytree(TOP / "bindings/python/littoral", folder / "packages/littoral")
    (package / "liblittoral.so").symlink_to(f"{binaries}/liblittoral.so")
    (programs / "python3").symlink_to("/usr/bin/python3")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LITTORAL_", "AWS_", "PYTHON"))}
    path = f"{programs}:{binaries}:{os.environ['PATH']}"
    return kept | {"PATH": path, "HOME": str(folder / "home"), "COLUMNS": "110", "PYTHONPATH": str(folder / "packages"), "PYTHONDONTWRITEBYTECODE": "1"}


def run(command, folder, environment):
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    said = done.stdout.replace(os.path.realpath(folder), FOLDER).replace(str(folder), FOLDER).replace(socket.gethostname(), HOST)
    lines = [f"$ {command}", *(line.rstrip() for line in said.splitlines())]
    return [*lines, f"(exit code {done.returncode})"] if done.returncode != 0 else lines


def words(lines):
    """What must not differ."""
    masked = []
    for line in lines:
        if not line.startswith("$ "):
            line = re.sub(r"\b[0-9a-f]{16,}\b", "#", line)
            line = re.sub(r"\d[\d,.:TZ-]*( ?(B|kB|MB|GB|ms|s|min))?\b", "#", line)
            line = re.sub(r"(request|write|page|record|blob|row|delta|frame|link|object)s\b", r"\1", line)
        masked.append(" ".join(line.split()))
    return masked


def commands(shown):
    """The lines behind "$ ", and those of one command that go on in the next line."""
    found, open_quote = [], False
    for line in shown:
        if open_quote:
            found[-1] += "\n" + line
        elif line.startswith("$ "):
            found.append(line[2:])
        else:
            continue
        open_quote = found[-1].count("'") % 2 == 1
    return found


def tour(page, binaries, write):
    text = page.read_text()
    name = str(page.relative_to(TOP))
    differences, kept, end = [], [], 0
    with tempfile.TemporaryDirectory() as machine:
        machine = pathlib.Path(machine)
        (machine / "home").mkdir()
        folder = machine / "app"
        folder.mkdir()
        around = environment(binaries, machine)
        for block in BLOCK.finditer(text):
            is_tour, language, file, body = block.groups()
            if is_tour is None:
                if file is not None and TOUR in text:
                    (folder / file).write_text(body.replace(FOLDER, str(folder)))
                continue
            shown = body.splitlines()
            found = []
            for command in commands(shown):
                found += "\n".join(run(command.replace(FOLDER, str(folder)), folder, around)).replace(str(folder), FOLDER).splitlines()
            kept += [text[end:block.start(4)], "\n".join(found) + "\n"]
            end = block.end(4)
            differences += [line.rstrip() for line in difflib.unified_diff(words(shown), words(found), name, "now", lineterm="", n=1)]
    if write:
        page.write_text("".join(kept) + text[end:])
        return []
    return differences


def main(binaries, pages, write):
    pages = [TOP / page for page in pages] or [page for page in [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))] if TOUR in page.read_text()]
    since, differences = time.monotonic(), []
    for page in pages:
        found = tour(page, os.path.realpath(binaries), write)
        if not write:
            differences += found or []
        print(f"tour: {page.relative_to(TOP)}: {'differs' if found else 'as it shows it'}")
    took = time.monotonic() - since
    if took > SECONDS_MAX:
        differences.append(f"tour: all pages took {took:.0f} s, and are to take {SECONDS_MAX} at most")
    return differences


if __name__ == "__main__":
    said = [word for word in sys.argv[1:] if word != "--write"]
    if not said:
        sys.exit(__doc__)
    differences = main(said[0], said[1:], "--write" in sys.argv)
    print("\n".join([*differences, f"tour: {'differs' if differences else 'as the pages show it'}"]))
    sys.exit(1 if differences else 0)
