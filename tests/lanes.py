"""Runs all tests, those that wait beside those that work: `python3 tests/lanes.py`.

Some programs wait nearly all of their time: for an alert that is due, for a store that is away, for a power failure. One after another with the
rest they left the processors idle. So they have a lane of their own, whose output comes when it has ended. What measures
time runs first, alone. A new program is in the other lane until somebody names it here.
"""

import json
import subprocess
import sys
import threading

CARGO = ["cargo", "test", "--workspace", "--all-features", "--locked"]

# They measure time, and are some minutes.
ALONE = ["change", "cold", "costs", "restore", "scans", "terabyte"]
# They wait, and are about as long as all others together. Programs of one name are in one lane.
WAITING = [
    *["bad_input", "bad_remote", "damage", "gigabyte", "kill", "lock_page", "loss", "model", "ops", "outage", "power", "publication", "race"],
    *["sessions", "small_disk", "soak", "stream", "times", "vouched", "worker"],
]


def programs():
    """The names of all test programs."""
    told = subprocess.run(["cargo", "metadata", "--no-deps", "--format-version=1", "--locked"], stdout=subprocess.PIPE, text=True, check=True).stdout
    targets = [target for package in json.loads(told)["packages"] for target in package["targets"]]
    return sorted({target["name"] for target in targets if "test" in target["kind"]})


def run(arguments, hear):
    """Whether all of these passed; each line is heard."""
    running = subprocess.Popen([*CARGO, "--no-fail-fast", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    for line in running.stdout:
        hear(line)
    return running.wait() == 0


def show(line):
    sys.stdout.write(line)
    sys.stdout.flush()


def these(names):
    return [word for name in names for word in ("--test", name)]


def main():
    if not run(["--no-run"], show):
        return 1
    passed = [run(these(ALONE), show)]
    said = []
    waiting = threading.Thread(target=lambda: passed.append(run(these(WAITING), said.append)))
    waiting.start()
    rest = [name for name in programs() if name not in ALONE + WAITING]
    passed.append(run(["--lib", "--bins", *these(rest)], show))
    passed.append(run(["--doc"], show))
    waiting.join()
    show("".join(said))
    return 0 if len(passed) == 4 and all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
