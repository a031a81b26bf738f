#!/usr/bin/env python3
"""What a reader of the repository relies on, without a compiler.

 1. A link from one of our pages leads to a file or a heading that is there.
 2. No tracked file names a path of the machine it was written on, or of a folder beside the checkout.
 3. The tables of rules in ARCHITECTURE.md name every test p<nn>_ or s<nn>_, beside its rule, and no other.
 4. A command that README.md shows in a fenced block, as `bash PATH`, is there.

    python3 .ci/docs.py              checks this checkout, after the self-test
    python3 .ci/docs.py --self-test
    python3 .ci/docs.py --write      fills the tables of rules
"""

import pathlib
import posixpath
import re
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
# Spelled in two halves, so that this page is not its own first find.
ELSEWHERE = ["/" + "work/", "/" + "root/", ".." + "/shared", ".." + "/.library", "/" + "home/"]
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
RULE_TEST = re.compile(r"\bfn ([ps]\d\d_\w+)")


def without_code(text):
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "``", text)


def slug(heading):
    """A heading's anchor, as forges make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def anchors(text):
    text = re.sub(r"^(```|~~~).*?^\1[^\n]*$", "", text, flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ +(.+?) *#*$", text, re.M)}


def check_links(pages, exists):
    """`pages`: path -> text of every page. `exists`: whether a path is in the repository."""
    found = []
    for path, text in pages.items():
        for target in LINK.findall(without_code(text)):
            if re.match(r"[a-z][a-z+.-]*:", target):
                continue
            name, _, anchor = target.partition("#")
            if name.startswith("/"):
                found.append(f"{path}: {target} begins at the root of a machine")
                continue
            place = posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) if name else path
            if not exists(place):
                found.append(f"{path}: {target} leads nowhere")
            elif anchor and place in pages and anchor not in anchors(pages[place]):
                found.append(f"{path}: {target}: no such heading")
    return found


def check_paths(files, words):
    return [
        f"{path}:{number}: names {word}"
        for path, text in files.items()
        for number, line in enumerate(text.splitlines(), 1)
        for word in words
        if re.search(r"(?<![\w.-])" + re.escape(word), line)
    ]


def with_rules(architecture, tests):
    """The page with its tables of rules filled. `tests`: (room, name) of every test of a rule."""
    def row(match):
        prefix = f"{match[1].lower()}{int(match[2]):02}_"
        shown = [f"`{name}` ({room})" for room, name in sorted(tests) if name.startswith(prefix)]
        return f"| {match[1]}{match[2]} | {match[3]} | {'<br>'.join(shown)} |"

    return re.sub(r"^\| ([PS])(\d+) \| (.*?) \|.*\|$", row, architecture, flags=re.M)


def check_rules(architecture, tests):
    found = [] if with_rules(architecture, tests) == architecture else ["ARCHITECTURE.md: the tables of rules are stale: python3 .ci/docs.py --write"]
    return found + [
        f"{room}: {name}: ARCHITECTURE.md has no row for its rule"
        for room, name in sorted(tests)
        if not re.search(rf"^\| {name[0].upper()}{int(name[1:3])} \|", architecture, re.M)
    ]


def tests_of_rules(files):
    found = set()
    for path, text in files.items():
        if path.endswith(".rs"):
            room = re.sub(r"/(src|tests|benches|examples)/.*|/[^/]*$", "", path)
            found |= {(room, name) for name in RULE_TEST.findall(text)}
    return found


def check_commands(readme, exists):
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", readme, re.M | re.S)
    return [f"README.md: bash {name} runs nothing" for block in blocks for name in re.findall(r"^(?:\$ )?bash (\S+)", block, re.M) if not exists(name)]


def self_test():
    there = {"README.md", "docs/a.md", "docs", ".", "cli/demo.sh"}.__contains__
    a = "# The Way\n## Of `all` things\n[ok](../README.md) [ok](#of-all-things) `[no](x.md)`\n```\n[no](y.md)\n# no\n```\n"
    assert check_links({"docs/a.md": a, "README.md": "[ok](docs/a.md#the-way) [web](https://example.com) [d](docs)"}, there) == []
    for text in ["[x](b.md)", "[x](../../outside.md)", "[x](/etc/passwd)", "[x](a.md#no)", "[x](#no)"]:
        assert len(check_links({"docs/a.md": text, }, there)) == 1, text
    for word in ELSEWHERE:
        assert len(check_paths({"x": f"see {word}y"}, ELSEWHERE)) == 1, word
    assert check_paths({"x": "a/" + "work/b, s3://bucket/" + "root/x, mod shared"}, ELSEWHERE) == []
    tests = tests_of_rules({"engine/log/src/a/b.rs": "fn p01_a() {", "tests/src/c.rs": "fn p01_b() {\nfn q01_c() {"})
    page = with_rules("| P1 | text. | |\n| P10 | more. | old |\n", tests)
    assert page == "| P1 | text. | `p01_a` (engine/log)<br>`p01_b` (tests) |\n| P10 | more. |  |\n", page
    assert check_rules(page, tests) == []
    assert len(check_rules("| P1 | text. | |", tests)) == 1
    assert len(check_rules("", tests)) == 2
    assert check_commands("```\nbash cli/demo.sh\n```\n", there) == []
    assert len(check_commands("```\nbash cli/gone.sh\n```\n", there)) == 1


def checkout():
    """Every name that is tracked or will be, and the text of those that are text."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=TOP, check=True, capture_output=True, text=True).stdout.split("\0")
    names = [name for name in names if (TOP / name).is_file()]
    files = {}
    for name in names:
        try:
            files[name] = (TOP / name).read_text()
        except UnicodeDecodeError:
            pass
    return names, files


def check_checkout():
    names, files = checkout()
    folders = {str(parent) for name in names for parent in pathlib.PurePosixPath(name).parents}
    exists = {*names, *folders}.__contains__
    words = ELSEWHERE + [f"{TOP}/"] * (len(TOP.parts) > 2)
    return (
        check_links({name: text for name, text in files.items() if name.endswith(".md")}, exists)
        + check_paths({name: text for name, text in files.items() if name != "Cargo.lock"}, words)
        + check_rules(files.get("ARCHITECTURE.md", ""), tests_of_rules(files))
        + check_commands(files.get("README.md", ""), exists)
    )


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        print("docs: every break was found")
        sys.exit()
    if sys.argv[1:] == ["--write"]:
        page = TOP / "ARCHITECTURE.md"
        page.write_text(with_rules(page.read_text(), tests_of_rules(checkout()[1])))
    refusals = check_checkout()
    for refusal in refusals:
        print(f"docs: {refusal}", file=sys.stderr)
    print(f"docs: {len(refusals)} refusals")
    sys.exit(1 if refusals else 0)
