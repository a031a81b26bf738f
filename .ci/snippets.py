"""The snippets of README, docs and bindings, and who tries each: read by docs.py, which refuses one that nobody tries, and by tour.py, which runs tours.

A snippet is a fenced block. One of these says who tries it, in the line before it (an empty line may be between):

    <!-- tour -->                       .ci/tour.py runs its "$ " lines and compares what they say
    <!-- tried by: PATH TEST -->        this test does, in this file; it names the page, or what it does is the same
    <!-- tried by: PATH -->             this file holds its lines, and is run itself
    <!-- not run: REASON -->            nobody can, and why

Whole pages have a test of their own, below. A block with a file's name behind its language is tried where a later block of the page that is run
names that file.
"""

import dataclasses
import re

PAGES = re.compile(r"(README\.md|docs/.*\.md|bindings/(\w+/)?README\.md)$")
# Pages that a test reads and runs: the test's file, its name, and the languages it knows.
HOSTS = "tests/hosts/tests/pages.rs"
TESTED = [
    (re.compile(r"docs/runbooks/[\w-]+\.md$"), "cli/tests/ops.rs", "the_commands_of_every_runbook_work_and_print_what_it_says", {"console"}),
    (re.compile(r"docs/hosts/sqlite3\.md$"), HOSTS, "the_page_of_the_sqlite3_shell", {"sh", "text"}),
    (re.compile(r"docs/hosts/python\.md$"), HOSTS, "the_page_of_python", {"sh", "text"}),
    (re.compile(r"docs/hosts/apsw\.md$"), HOSTS, "the_page_of_apsw", {"sh", "text"}),
    (re.compile(r"docs/hosts/c\.md$"), HOSTS, "the_page_of_c", {"sh", "text"}),
    (re.compile(r"docs/hosts/node\.md$"), HOSTS, "the_page_of_node", {"sh", "text"}),
]
# Read by rustdoc, which compiles what is Rust, from the crate's source that includes it.
COMPILED = {"docs/hosts/rust.md": "bindings/rust/src/lib.rs", "docs/logs.md": "engine/src/logs.rs"}
# Found beside the database by whoever opens it.
SETTINGS = "littoral.toml"
MARK = re.compile(r"<!-- (tour|tried by|not run)(?:: *(.*?))? *-->")


@dataclasses.dataclass
class Snippet:
    line: int
    mark: str | None
    reason: str
    language: str
    file: str | None
    body: str
    # Of the body, in the page.
    start: int
    end: int
    indent: str


def snippets(text):
    """Every fenced block of a page; and a refusal for each line of code that is none of a fenced block."""
    found, refused = [], []
    at, open_fence, ticks, marked, last, in_list = 0, None, "", None, "", False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        fence = re.match(r"( *)(```+|~~~+) *([^\n`]*)\n?$", line)
        if open_fence is not None:
            if fence and not fence[3] and fence[2] == ticks:
                open_fence.end = at
                open_fence.body = re.sub(f"^{open_fence.indent}", "", text[open_fence.start:at], flags=re.M)
                found.append(open_fence)
                open_fence, marked = None, None
        elif fence:
            language, _, file = fence[3].partition(" ")
            ticks, (mark, reason) = fence[2], marked or (None, "")
            open_fence = Snippet(number, mark, reason, language.split(",")[0], file.strip() or None, "", at + len(line), at, fence[1])
        elif line.strip():
            mark = MARK.fullmatch(line.strip())
            if marked and not mark:
                refused.append((number, "a mark stands before no fenced block"))
            marked = (mark[1], mark[2] or "") if mark else None
            if re.match(r" *([-*+]|\d+\.) ", line):
                in_list = True
            elif not line.startswith(" "):
                in_list = False
            if line.startswith("    ") and not last.strip() and not in_list:
                refused.append((number, "code that is indented: write it as a fenced block, so that somebody can try it"))
        last = line
        at += len(line)
    if open_fence is not None:
        refused.append((open_fence.line, "a fenced block without an end"))
    if marked:
        refused.append((number, "a mark stands before no fenced block"))
    return found, refused


def has_test(source, name):
    return re.search(rf"#\[(?:tokio::)?test\b[^\n]*\n(?:#\[[^\n]*\n)*(?:async )?fn {name}\(", re.sub(r"^ +", "", source, flags=re.M)) is not None


def is_run(path, snippet):
    """Whether its commands are run by somebody who goes through the page."""
    return snippet.mark == "tour" or (snippet.mark is None and any(page.match(path) and snippet.language in languages and snippet.language != "text"
                                                                   for page, _, _, languages in TESTED))


def why_untried(path, snippet, later, files):
    """What is amiss with who tries it; `None` where somebody does. `later`: the snippets behind it. `files`: path -> text of every source."""
    if snippet.mark == "tour":
        return None if re.match(r"\$ \S", snippet.body) and snippet.language == "console" else "a tour is a block of `console` that begins with a command"
    if snippet.mark == "not run":
        return None if len(snippet.reason.split()) >= 3 else "the mark gives no reason"
    if snippet.mark == "tried by":
        source, _, name = snippet.reason.partition(" ")
        if name:
            return None if has_test(files.get(source, ""), name) else f"{source} has no test {name}"
        missing = [line for line in snippet.body.splitlines() if line.removeprefix("$ ") not in files.get(source, "")]
        return f"{source} does not hold: {missing[0]}" if missing else None if source in files else f"{source} is not there"
    if path in COMPILED and snippet.language == "rust":
        return None if path.split("/", 1)[1] in files.get(COMPILED[path], "") else f"{COMPILED[path]} does not include the page"
    for page, source, name, languages in TESTED:
        if page.match(path) and snippet.language in languages:
            return None if has_test(files.get(source, ""), name) else f"{source} has no test {name}"
    if snippet.file is not None:
        commands = [one for one in later if is_run(path, one)]
        # Python names a module without its end.
        name = re.compile(rf"[\s=/]{re.escape(snippet.file.removesuffix('.py'))}\b")
        if commands and (snippet.file == SETTINGS or any(name.search(one.body) for one in commands)):
            return None
        return f"no later command of the page uses {snippet.file}"
    return "nobody tries this snippet: put <!-- tour --> before it, or <!-- not run: why -->; .ci/snippets.py says what else"


def check_snippets(pages, files):
    """`pages`: path -> text of every page."""
    found = []
    for path, text in sorted(pages.items()):
        all_of_it, refused = snippets(text)
        found += [f"{path}:{line}: {why}" for line, why in refused]
        for place, snippet in enumerate(all_of_it):
            why = why_untried(path, snippet, all_of_it[place + 1:], files)
            if why is not None:
                found.append(f"{path}:{snippet.line}: {why}")
    return found


def self_test():
    test = {"a.rs": "    #[test]\n    fn ok() {\n", "run": "check x bash all.sh\n", "docs/hosts/c.md": ""}

    def refusals(text, path="docs/a.md"):
        return check_snippets({path: text}, test)

    run = "<!-- tour -->\n\n```console\n$ python3 app.py\n```\n"
    for text in [run, "```python app.py\nx\n```\n" + run, "```toml littoral.toml\n```\n" + run, "- a\n\n      more of it\n", "- a\n\n  <!-- not run: it takes a cloud -->\n  ```sh\n  x\n  ```\n",
                 "<!-- tried by: a.rs ok -->\n```toml\n```\n", "<!-- tried by: run -->\n```sh\nbash all.sh\n```\n", "<!-- not run: just for show -->\n~~~text\n```\n~~~\n"]:
        assert refusals(text) == [], (text, refusals(text))
    for text in ["```sh\nx\n```\n", "```\nx\n```\n", "- a\n\n  ```sql\n  x\n  ```\n", run + "```python app.py\n```\n", "```python other.py\n```\n" + run, "```sh\nx\n", "a\n\n    code\n",
                 "<!-- tour -->\n```console\nx\n```\n", "<!-- tour -->\n```sh\n$ x\n```\n", "<!-- not run: -->\n```sh\n```\n", "<!-- not run: no -->\n```sh\n```\n", "<!-- tour -->\n\ntext\n", "<!-- tour -->\n",
                 "<!-- tried by: a.rs gone -->\n```toml\n```\n", "<!-- tried by: gone.rs -->\n```toml\n```\n", "<!-- tried by: run -->\n```sh\nbash none.sh\n```\n"]:
        assert len(refusals(text)) == 1, (text, refusals(text))
    assert len(refusals("```console\n$ x\n```\n", "docs/runbooks/a.md")) == 1, "the test is not there"
    assert "    x\n" in snippets("- a\n  ```sh\n      x\n  ```\n")[0][0].body
