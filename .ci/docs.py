#!/usr/bin/env python3
"""What a reader of the repository relies on, without a compiler.

 1. A link from one of our pages leads to a file or a heading that is there.
 2. No tracked file names a path of the machine it was written on, or of a folder beside the checkout.
 3. A rule's number in the table of ARCHITECTURE.md has the test that the table names, and no test p<nn>_ or s<nn>_ is left out.
 4. A command that README.md shows in a fenced block, as `bash PATH`, is there.

    python3 .ci/docs.py              checks this checkout, after the self-test
    python3 .ci/docs.py --self-test
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


def check_rules(architecture, sources):
    """The table of rules names every test of a rule that the sources have, and no other."""
    there = {name for text in sources for name in RULE_TEST.findall(text)}
    named = set(re.findall(r"`([ps]\d\d_\w+)`", architecture))
    return [f"ARCHITECTURE.md names the test {name}, and no source has it" for name in sorted(named - there)] + [
        f"ARCHITECTURE.md leaves out the test {name}" for name in sorted(there - named)
    ]


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
    assert check_rules("| P1 | `p01_a` |", ["fn p01_a() {"]) == []
    assert len(check_rules("| P1 | `p01_a` |", ["fn p01_b() {"])) == 2
    assert check_commands("```\nbash cli/demo.sh\n```\n", there) == []
    assert len(check_commands("```\nbash cli/gone.sh\n```\n", there)) == 1


def check_checkout():
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                           cwd=TOP, check=True, capture_output=True, text=True).stdout.split("\0")
    files = {}
    for name in filter(None, names):
        path = TOP / name
        try:
            files[name] = path.read_text() if path.is_file() else None
        except UnicodeDecodeError:
            files[name] = None
    files = {name: text for name, text in files.items() if text is not None}
    folders = {str(parent) for name in names if name for parent in pathlib.PurePosixPath(name).parents}
    exists = {*filter(None, names), *folders}.__contains__
    words = ELSEWHERE + [str(TOP) + "/"] * (len(TOP.parts) > 2)
    rust = [text for name, text in files.items() if name.endswith(".rs")]
    return (
        check_links({name: text for name, text in files.items() if name.endswith(".md")}, exists)
        + check_paths({name: text for name, text in files.items() if name != "Cargo.lock"}, words)
        + check_rules(files.get("ARCHITECTURE.md", ""), rust)
        + check_commands(files.get("README.md", ""), exists)
    )


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        print("docs: every break was found")
        sys.exit()
    refusals = check_checkout()
    for refusal in refusals:
        print(f"docs: {refusal}", file=sys.stderr)
    print(f"docs: {len(refusals)} refusals")
    sys.exit(1 if refusals else 0)
