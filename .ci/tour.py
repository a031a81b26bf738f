#!/usr/bin/env python3
"""README's tour, run again: what it shows is what happens.

    python3 .ci/tour.py FOLDER           runs every "$ " line of the tour with the littoral of FOLDER, and compares
    python3 .ci/tour.py FOLDER --write   writes down what it said

Numbers, times and hashes differ from run to run and are not compared; words are.
"""

import difflib
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- tour -->\n+```console\n)(.*?)(^```)", re.M | re.S)
# How the temporary folder and this machine are called in the page.
FOLDER, HOST = "/srv/app", "laptop"


def run(commands, binaries):
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LITTORAL_", "AWS_"))}
        environment = kept | {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": folder, "COLUMNS": "110"}
        for command in commands:
            lines.append(f"$ {command}")
            done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
            said = done.stdout.replace(os.path.realpath(folder), FOLDER).replace(folder, FOLDER).replace(socket.gethostname(), HOST)
            lines += [line.rstrip() for line in said.splitlines()]
            if done.returncode != 0:
                lines.append(f"(exit code {done.returncode})")
    return lines


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


def main(binaries, write):
    page = README.read_text()
    block = BLOCK.search(page)
    if block is None:
        return ["README.md has no tour"]
    shown = block[2].splitlines()
    found = run([line[2:] for line in shown if line.startswith("$ ")], os.path.realpath(binaries))
    if write:
        README.write_text(page[: block.start(2)] + "\n".join(found) + "\n" + page[block.end(2):])
        return []
    return [line.rstrip() for line in difflib.unified_diff(words(shown), words(found), "README.md", "now", lineterm="", n=1)]


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--write"]):
        sys.exit(__doc__)
    differences = main(sys.argv[1], sys.argv[2:] == ["--write"])
    print("\n".join([*differences, f"tour: {'differs' if differences else 'as README shows it'}"]))
    sys.exit(1 if differences else 0)
