"""Reads sections, tables and code blocks of the documentation."""

from __future__ import annotations

import re


def section(text: str, title: str) -> str:
    """Returns what stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", without_comments(text), re.M | re.S)
    assert found, title
    return found[1]


def without_comments(text: str) -> str:
    """Hides `# comments` in code blocks, which look like headings."""
    return re.sub(r"(?<=\n)```.*?\n```", lambda block: re.sub(r"^#", "\0", block[0], flags=re.M), text, flags=re.S)


def code_blocks(text: str, language: str) -> list[str]:
    """Returns the code blocks of a language."""
    return [block.replace("\0", "#") for block in re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)]


def table_rows(text: str) -> list[list[str]]:
    """Returns the cells of a section's table, without its head."""
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
