"""docs/walkthrough.md names functions and scripts that exist, in the files that it links to."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "walkthrough.md").read_text()
LINKS = re.findall(r"\[`([\w.]+)`\]\(\.\./([\w/.]+\.py)\)", PAGE)
SCRIPTS = sorted(set(re.findall(r"`(\w+\.lua)`", PAGE)))


def _definitions(path: Path) -> set[str]:
    """Qualified names of the functions, methods and classes of a file."""
    found = set()

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(prefix + child.name)
                visit(child, f"{prefix}{child.name}.")

    visit(ast.parse(path.read_text()), "")
    return found


def test_the_page_has_links() -> None:
    assert len(LINKS) > 30
    assert len(SCRIPTS) > 5


@pytest.mark.parametrize(("name", "path"), sorted(set(LINKS)))
def test_a_link_leads_to_what_it_names(name: str, path: str) -> None:
    assert name in _definitions(ROOT / path)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_there(name: str) -> None:
    assert list((ROOT / "ledger" / "lua").rglob(name))
