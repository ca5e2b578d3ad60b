"""docs/budgets.md: the figures of docs/budgets.json, which `--write` of each benchmark fills, between the words around them.

`python benchmarks/page.py` writes the page anew, `--check` only compares.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from table import RESULTS, ROOT, Figure, budget, measured, ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PAGE = ROOT / "docs" / "budgets.md"
BEGIN, END = "<!-- figures: written by benchmarks/page.py -->", "<!-- end of figures -->"


class Measured:
    """One table as `--write` kept it."""

    def __init__(self, title: str, kept: dict[str, Any]) -> None:
        self.title = title
        self.command: str = kept["command"]
        self.when = f"{kept['day']}, load {kept['load']:.1f}, {kept['on']}"
        self.notes: list[str] = kept["notes"]
        self.figures = [Figure(**{**one, **_pairs(one)}) for one in kept["figures"]]

    def section(self) -> str:
        """Heading, how it was measured, and the table."""
        rows = [(_name(f), measured(f), budget(f), _met(f), ratio(f)) for f in self.figures]
        notes = "".join(f"- {note}\n" for note in self.notes)
        told = f"`{self.command}`; {self.when}."
        return f"### {self.title}\n\n{told}\n\n{_table(('what', 'measured', 'budget', 'met', 'ratio'), rows)}\n{notes}"


def _pairs(figure: Mapping[str, Any]) -> dict[str, Any]:
    """What JSON keeps as lists."""
    return {key: tuple(figure[key]) for key in ("baseline", "interval") if figure.get(key)}


def _name(figure: Figure) -> str:
    """Indented names are parts of what stands above them."""
    return f"… {figure.name.strip()}" if figure.name.startswith(" ") else figure.name


def _met(figure: Figure) -> str:
    return "**no**" if figure.met == "NO" else figure.met


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def summary(tables: Sequence[Measured]) -> str:
    """How many budgets are met, those that are not, and those whose interval has room for both."""
    promised = [(table, figure) for table in tables for figure in table.figures if figure.budget is not None]
    told = [f"Of {len(promised)} budgets {sum(figure.met == 'yes' for _, figure in promised)} are met.\n"]
    for met, said in (("NO", "Not met:"), ("unsure", "Undecided, their 95 % interval has room for both:")):
        found = [(table, figure) for table, figure in promised if figure.met == met]
        rows = [(_name(f), measured(f), budget(f), f"`{table.command}`") for table, f in found]
        told += [f"{said}\n\n{_table(('what', 'measured', 'budget', 'command'), rows)}"] if rows else []
    return "\n".join(told)


def written(page: str, results: dict[str, Any]) -> str:
    """The page with its figures written anew.

    Raises:
        SystemExit: the page lacks the lines between which they stand.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE.name}: expected the lines {BEGIN!r} and {END!r} around the figures")
    tables = [Measured(title, kept) for title, kept in sorted(results.items(), key=lambda item: item[1]["command"])]
    return f"{head}{BEGIN}\n\n{summary(tables)}\n" + "\n".join(table.section() for table in tables) + f"\n{END}{tail}"


def main(arguments: Sequence[str]) -> int:
    """Write, or with `--check` only compare."""
    if arguments not in ([], ["--check"]):
        print("usage: python benchmarks/page.py [--check]", file=sys.stderr)
        return 2
    page = PAGE.read_text(encoding="utf-8")
    new = written(page, json.loads(RESULTS.read_text(encoding="utf-8")))
    if page == new:
        return 0
    if arguments:
        print("docs/budgets.md is not what docs/budgets.json says; run: python benchmarks/page.py", file=sys.stderr)
        return 1
    PAGE.write_text(new, encoding="utf-8")
    print("wrote docs/budgets.md")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
