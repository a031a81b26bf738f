#!/usr/bin/env python3
"""What a reader of the repository relies on, without a compiler.

 1. A link from one of our pages leads to a file or a heading that is there.
 2. No tracked file names a path of the machine it was written on, or of a folder beside the checkout.
 3. The tables of rules in ARCHITECTURE.md name every test p<nn>_ or s<nn>_, beside its rule, and no other.
 4. A command that README.md shows in a fenced block, as `bash PATH`, is there.
 5. The catalogue of faults has at least 40 rows, numbered, and each test that a row names is in the file that it names.
 6. docs/reference.md lists every setting, function and table as the code spells and explains it.
 7. Somebody tries every snippet of README, docs and bindings, or a mark before it says why nobody can (snippets.py).
 8. A pragma, function or table of ours that a page names in SQL is one that there is.

    python3 .ci/docs.py              checks this checkout, after the self-test
    python3 .ci/docs.py --self-test
    python3 .ci/docs.py --write      fills the tables of rules, and the reference
"""

import pathlib
import posixpath
import re
import subprocess
import sys

import snippets

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


FAULT_ROW = re.compile(r"^\| (\d+) \|(.*)\|$", re.M)
FAULT_TEST = re.compile(r"`([\w./-]+\.rs)` `(\w+)`")


def check_faults(page, files):
    """`files`: path -> text of every source."""
    rows = FAULT_ROW.findall(page)
    found = [] if len(rows) >= 40 else [f"docs/faults.md: {len(rows)} scenarios, and there are to be 40 at least"]
    if [int(number) for number, _ in rows] != list(range(1, len(rows) + 1)):
        found.append("docs/faults.md: its rows are not numbered one after the other")
    for number, row in rows:
        tests = FAULT_TEST.findall(row)
        if len(row.split("|")) != 3 or not tests:
            found.append(f"docs/faults.md: row {number} says no scenario, no expectation or no test")
        found += [
            f"docs/faults.md: row {number}: {path} has no test {name}"
            for path, name in tests
            if not snippets.has_test(files.get(path, ""), name)
        ]
    return found


def sentence(comment):
    """A doc comment's text up to its first full stop, as a page shows it."""
    text = " ".join(line.strip().lstrip("/!").strip() for line in comment.strip().splitlines())
    text = re.sub(r"\[(`[^`]*`)\](?:\([^)]*\))?", r"\1", text)
    return re.split(r"(?<=[^.])\.(?: |$)", text)[0].strip().replace("|", "\\|")


def settings_of(source, moment):
    """(name, what it says, what a value looks like) of every setting, in the order of the code."""
    takes = dict(re.findall(r'TAKES: &str\s*=\s*(")((?:[^"\\]|\\.|\\\n)*)"', moment))
    told = {name: text for name, text in re.findall(r'Key::(\w+) => "(\w+)"', source)}
    values = {}
    body = source[source.index("pub const fn takes"):]
    for keys, text in re.findall(r'((?:Key::\w+\s*\|?\s*)+)=>\s*\{?\s*(littoral_types::moment::TAKES|"(?:[^"\\]|\\.)*")', body[:body.index("pub fn variable")]):
        text = takes['"'] if text.startswith("littoral") else text[1:-1]
        values |= {key: re.sub(r"\\\n\s*", "", text) for key in re.findall(r"Key::(\w+)", keys)}
    meant = re.findall(r"((?: +///[^\n]*\n)+) +(\w+),\n", source[source.index("pub enum Key"):source.index("impl Key")])
    return [(told[key], sentence(comment), values[key]) for comment, key in meant]


SQL_ITEM = re.compile(r"((?:///[^\n]*\n)+)pub(?:\([^)]*\))? const \w+: (Function|Table) =\s*\2 \{\s*name: \"(\w+)\",\s*(?:arguments_max: (\d)|columns:\s*&\[(.*?)\])", re.S)


def sql_of(source):
    """(kind, name, most arguments or columns, what it says) of what a file of vfs/src/sql registers."""
    head = re.match(r"(?://![^\n]*\n)+", source)
    found = []
    for comment, kind, name, arguments, columns in SQL_ITEM.findall(source):
        said = sentence(comment)
        mine = re.match(r"//! (?:The table )?`" + name + r"(?:\([^`]*)?`: ", head[0]) if head else None
        if mine:
            said = sentence("//! " + head[0][mine.end():])
        columns = re.findall(r'"(\w+)[^"]*"', columns)
        found.append((kind, name, int(arguments) if kind == "Function" else columns, said[:1].upper() + said[1:]))
    return found


def reference(files):
    settings = settings_of(files["engine/src/settings.rs"], files["engine/types/src/moment.rs"])
    sql = [item for path in sorted(files) if re.match(r"vfs/src/sql/\w+\.rs$", path) for item in sql_of(files[path])]
    functions, tables = ([item for item in sql if item[0] == kind] for kind in ("Function", "Table"))
    lines = [
        "# Reference",
        "",
        "Every setting, pragma, function and table, as the code spells and explains it: `python3 .ci/docs.py --write` writes this page. Commands stand in",
        "[the command line](cli.md), which a test compares with the program; what belongs together, and defaults, in [settings](cli.md#settings) and",
        "[SQL](hosts/README.md#what-is-the-same-everywhere).",
        "",
        "## Settings",
        "",
        "A parameter of a database's URI (`&durability=remote`), an argument of `connect` (`durability=\"remote\"`), a flag (`--durability remote`), a variable",
        "(`LITTORAL_DURABILITY=remote`) or a line of `littoral.toml` (`durability = \"remote\"`).",
        "",
        "| setting | what it says | a value |",
        "|---|---|---|",
        *(f"| `{name}` | {said} | {value} |" for name, said, value in settings),
        "",
        "## Pragmas and functions",
        "",
        "Each is a function (`SELECT littoral_wait('1.42', 5000)`), and with no value or one a pragma too (`PRAGMA littoral_sync`);",
        "those of [logs](logs.md#as-a-table-in-sql), `littoral_log_…`, are functions alone, of any connection.",
        "",
        "| name | values at most | |",
        "|---|---|---|",
        *(f"| `{name}` | {count} | {said} |" for _, name, count, said in functions),
        "",
        "## Tables",
        "",
        "They are there without being made (`SELECT * FROM littoral_status`), and take a schema as their argument (`littoral_status('aux')`).",
        "",
        "| name | columns | |",
        "|---|---|---|",
        *(f"| `{name}` | {', '.join(f'`{column}`' for column in columns)} | {said} |" for _, name, columns, said in tables),
        "",
    ]
    return "\n".join(lines)


def check_reference(files):
    """That nothing of the code is missed by how it is read here, and that the page is what it says."""
    registered = re.findall(r"^    (\w+)::(\w+),$", files["vfs/src/sql/mod.rs"], re.M)
    page = reference(files)
    found = [] if page.count("\n| `littoral_") == len(registered) else [f"docs/reference.md: {len(registered)} functions and tables are registered, and others were found"]
    return found + ([] if files.get("docs/reference.md") == page else ["docs/reference.md is stale: python3 .ci/docs.py --write"])


def check_sql(pages, reference):
    """`pages`: path -> text. `littoral_serials` is a table of the user's."""
    known = {"littoral_serials", *re.findall(r"^\| `(littoral_\w+)` \|", reference, re.M)}
    return [
        f"{path}: {name}: docs/reference.md has none of that name"
        for path, text in pages.items()
        for name in re.findall(r"(?i:PRAGMA|SELECT|FROM)\s+(littoral_\w+)", text)
        if name not in known
    ]


def self_test():
    snippets.self_test()
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
    sources = {"a/b.rs": "    #[test]\n    fn ok() {\n", "c.rs": "#[tokio::test(flavor = 1)]\nasync fn too() {", "d.rs": "fn ok() {"}
    rows = [f"| {n} | what | then | `a/b.rs` `ok`, `c.rs` `too` |" for n in range(1, 41)]
    assert check_faults("\n".join(rows), sources) == []
    assert len(check_faults("\n".join(rows[:39]), sources)) == 1
    assert len(check_faults("\n".join(rows[1:] + ["| 41 | a | b | `a/b.rs` `ok` |"]), sources)) == 1
    for row in ["| 41 | a | b | `a/b.rs` `gone` |", "| 41 | a | b | `gone.rs` `ok` |", "| 41 | a | b | `d.rs` `ok` |", "| 41 | a | b | |", "| 41 | a | `a/b.rs` `ok` |"]:
        assert len(check_faults("\n".join(rows + [row]), sources)) == 1, row
    assert sentence("/// One [`A`], as in 5/0.4\n/// of all. Two.") == "One `A`, as in 5/0.4 of all"
    item = '//! `littoral_x(a)`: what it is. More.\n/// The table.\npub(super) const X: Table = Table {\n    name: "littoral_x",\n    columns: &["a TEXT", "b"],\n'
    assert sql_of(item) == [("Table", "littoral_x", ["a", "b"], "What it is")], sql_of(item)
    assert sql_of('/// Does.\nconst Y: Function = Function { name: "littoral_y", arguments_max: 2,') == []
    assert sql_of('/// Does.\npub const Y: Function = Function { name: "littoral_y", arguments_max: 2,') == [("Function", "littoral_y", 2, "Does")]
    sql = "| `littoral_x` | 1 | |\n"
    assert check_sql({"a.md": "`PRAGMA littoral_x`, `SELECT littoral_x()`, `SELECT * FROM littoral_serials`, littoral_y"}, sql) == []
    for text in ["`PRAGMA littoral_y`", "`select littoral_y(1)`", "SELECT *\n  FROM littoral_y"]:
        assert len(check_sql({"a.md": text}, sql)) == 1, text
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
    pages = {name: text for name, text in files.items() if snippets.PAGES.match(name)}
    words = ELSEWHERE + [f"{TOP}/"] * (len(TOP.parts) > 2)
    return (
        check_links({name: text for name, text in files.items() if name.endswith(".md")}, exists)
        + check_paths({name: text for name, text in files.items() if name != "Cargo.lock"}, words)
        + check_rules(files.get("ARCHITECTURE.md", ""), tests_of_rules(files))
        + check_commands(files.get("README.md", ""), exists)
        + check_faults(files.get("docs/faults.md", ""), files)
        + check_reference(files)
        + snippets.check_snippets(pages, files)
        + check_sql(pages, files.get("docs/reference.md", ""))
    )


if __name__ == "__main__":
    self_test()
    if sys.argv[1:] == ["--self-test"]:
        print("docs: every break was found")
        sys.exit()
    if sys.argv[1:] == ["--write"]:
        page = TOP / "ARCHITECTURE.md"
        files = checkout()[1]
        page.write_text(with_rules(page.read_text(), tests_of_rules(files)))
        (TOP / "docs/reference.md").write_text(reference(files))
    refusals = check_checkout()
    for refusal in refusals:
        print(f"docs: {refusal}", file=sys.stderr)
    print(f"docs: {len(refusals)} refusals")
    sys.exit(1 if refusals else 0)
