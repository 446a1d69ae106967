"""How Sphinx builds the documentation: `make docs`.

The source directory is that of the project, so that the documents at its root and those in `docs/`
link to each other in the same way on the built pages as in a repository browser.
"""

from __future__ import annotations

import click
from click.testing import CliRunner
from docutils import nodes
from docutils.parsers.rst import Directive
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

import lakelog
from lakelog.cli import SECTIONS, cli

project = "lakelog"
copyright = "the authors of lakelog"
release = version = lakelog.__version__
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**", "benchmarks/*.md"]
exclude_patterns = ["docs/conf.py", "docs/reader-node/node_modules"]
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"lakelog {version}"
html_copy_source = False
nitpicky = False  # annotations name classes of pyarrow and DuckDB, which no page here describes

WIDTH = 78  # of help texts on a terminal of 80 columns

myst_heading_anchors = 4
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # a page may begin with a heading of any level

default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
add_module_names = False
python_maximum_signature_line_length = 88


class Help(Directive):
    """`.. lakelog-help::` is the help of every verb, as a terminal of 80 columns shows it."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each group of verbs, and in it one for each verb."""
        sections = [self._section("lakelog", [])]
        for title, verbs in SECTIONS.items():
            group = self._section(title, None)
            for verb in verbs:
                group += [self._section(" ".join(words), words) for words in with_subcommands(verb)]
            sections.append(group)
        return list(sections)

    def _section(self, title: str, words: list[str] | None) -> nodes.section:
        # No name: that of the verb `search` is the page of the search already.
        section = nodes.section(ids=[nodes.make_id(title)])
        section += nodes.title(text=title)
        if words is not None:
            text = CliRunner().invoke(cli, [*words, "--help"], terminal_width=WIDTH).output
            section += nodes.literal_block(text, text, language="text")
        self.state.document.note_explicit_target(section)
        return section


def with_subcommands(verb: str) -> list[list[str]]:
    """Return the words of a verb, and of each of its subcommands if it has any."""
    command = cli.get_command(click.Context(cli), verb)
    names = (
        command.list_commands(click.Context(command)) if isinstance(command, click.Group) else []
    )
    return [[verb], *([verb, name] for name in names)]


def as_rst(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Mark the indented parts of a docstring, which are examples and trees, as literal blocks."""
    for at in range(len(lines) - 1, 0, -1):
        begins = lines[at].startswith("    ") and not lines[at - 1].strip()
        text = next((line for line in reversed(lines[:at]) if line.strip()), "")
        if begins and not text.startswith(" "):
            lines[at:at] = ["::", ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what this documentation needs of its own."""
    app.add_directive("lakelog-help", Help)
    app.add_lexer("ipython", TextLexer)
    app.connect("autodoc-process-docstring", as_rst)
    return {"parallel_read_safe": True}
