"""Runs what failed once more, by itself: `python3 tests/second_try.py LOG`.

LOG is what `cargo test` printed. At most MOST tests are run again, each alone, and each must pass then; a program that died, or that did not
compile, is not. The exit code is 0 where all passed at their second try.
"""

import re
import subprocess
import sys

# More than these are no accident.
MOST = 3


def failed(lines):
    """Which tests failed, each with what names its program for cargo; `None` where a program failed without saying which."""
    found, programs, program, names, is_list = [], 0, [], [], False
    for line in lines:
        if running := re.match(r"\s+Running (?:unittests (\S+)|(?:\S*/)?tests/(\w+)\.rs) \(", line):
            unit, test = running.groups()
            program = ["--test", test] if test else ["--lib"] if unit.endswith("lib.rs") else ["--bins"]
        elif re.match(r"\s+Doc-tests ", line):
            program = ["--doc"]
        elif line == "failures:":
            names, is_list = [], True
        elif is_list and re.fullmatch(r"    [\w:]+", line):
            names.append(line.strip())
        elif line.startswith("test result: FAILED"):
            found += [(program, name) for name in names]
            programs, is_list = programs + 1, False
    told = sum(bool(re.match(r"    `-p \S+ .*`$", line)) for line in lines)
    return found if programs == told else None


def main(log):
    with open(log, errors="replace") as lines:
        found = failed([line.rstrip("\n") for line in lines])
    if not found or len(found) > MOST:
        print("==> not run again: " + ("more than is an accident" if found else "a program that failed names no test"))
        return 1
    passed = True
    for program, name in found:
        command = ["cargo", "test", "--workspace", "--all-features", "--locked", *program, "--", "--exact", name, "--test-threads=1"]
        print(f"==> once more: {' '.join(command)}", flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        is_fine = done.returncode == 0 and re.search(r"^test result: ok\. [1-9]", done.stdout, re.M)
        print(f"==> {name}: {'passed at the second try' if is_fine else 'FAILED again'}", flush=True)
        if not is_fine:
            print(done.stdout)
        passed &= bool(is_fine)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
