"""The documents say what the code says, and their links lead somewhere."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from gradwatch_contracts import PROTOCOL_MAJOR
from gradwatch_contracts import messages as m
from gradwatch_contracts.codec import encode
from gradwatch_contracts.columns import STATUS_REASON, Kind, RankRule, Status
from gradwatch_contracts.frame import HEADER, MAGIC, FrameType, decode_frame

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROTOCOL = (DOCS / "protocol.md").read_text(encoding="utf-8")
CLASSES: dict[FrameType, type] = {
    kind: getattr(m, {"SCHEMA": "SchemaMessage", "LEVEL": "LevelMessage"}.get(kind.name, kind.name.title()))
    for kind in FrameType
}
ADRS = sorted((DOCS / "adr").glob("*.md"))


def _section(kind: FrameType) -> str:
    """The part of protocol.md whose heading names the type with its number."""
    pattern = rf"^### [^\n]*\b{kind.name} · {kind.value}\b.*?(?=^##)"
    found = re.search(pattern, PROTOCOL, re.MULTILINE | re.DOTALL)
    assert found, f"docs/protocol.md has no section {kind.name} · {kind.value}"
    return found.group()


def _documented_fields(section: str) -> list[str]:
    return [name for name in re.findall(r"^\| ([a-z_0-9]+) \|", section, re.MULTILINE) if name != "field"]


@pytest.mark.parametrize("kind", list(FrameType), ids=lambda kind: kind.name)
def test_protocol_page_section_lists_exactly_the_fields(kind: FrameType) -> None:
    """Every frame type has its section, with the fields of its message in wire order and no others."""
    assert _documented_fields(_section(kind)) == [field.name for field in fields(CLASSES[kind])]


def test_protocol_page_sections_without_a_type_none_found() -> None:
    """A section for something that is not sent would mislead whoever writes another agent."""
    named = {
        int(number) for number in re.findall(r"^### .*", PROTOCOL, re.MULTILINE) for number in re.findall(r"· (\d+)", number)
    }

    assert named == {int(kind) for kind in FrameType}


def test_protocol_page_status_table_equals_the_code() -> None:
    """Number, name and reason of every status."""
    rows = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| (.+) \|$", PROTOCOL, re.MULTILINE)

    assert [(int(code), name) for code, name, _ in rows] == [(int(status), status.name) for status in Status]
    assert all(text.startswith(STATUS_REASON[Status(int(code))]) for code, _, text in rows)


def test_protocol_page_header_table_equals_the_code() -> None:
    """Offsets of the header as the page gives them, on a real frame."""
    frame = encode(m.Ping(7))
    rows = re.findall(r"^\| (\d+) \| (\w+) \| (?:4 bytes|u(\d+)) \|", PROTOCOL, re.MULTILINE)
    values = {
        name: int.from_bytes(frame[int(offset) : int(offset) + int(bits) // 8], "little") for offset, name, bits in rows if bits
    }

    assert frame[:4] == MAGIC
    assert [name for _, name, _ in rows] == ["magic", "major", "type", "flags", "length", "crc32"]
    assert values["major"] == PROTOCOL_MAJOR
    assert values["type"] == FrameType.PING
    assert values["flags"] == 0
    assert values["length"] == len(frame) - HEADER.size
    assert decode_frame(frame)[0] is FrameType.PING


def test_protocol_page_names_every_kind_and_rank_rule() -> None:
    """A column's two enums are spelled out."""
    flat = " ".join(PROTOCOL.split())

    assert f"`{' '.join(kind.value for kind in Kind)}`" in flat
    assert f"`{' '.join(rule.value for rule in RankRule)}`" in flat


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_adr_has_its_parts_within_forty_lines(path: Path) -> None:
    """A decision is short: context, decision, consequences, what was measured."""
    text = path.read_text(encoding="utf-8")
    number = int(path.name[:4])

    assert text.startswith(f"# {number}. ")
    assert len(text.splitlines()) <= 40
    for heading in ("## Context", "## Decision", "## Consequences", "## Measured"):
        assert heading in text, heading


def test_adr_numbers_have_no_gap() -> None:
    """Numbers are given once and in order."""
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))


def test_changelog_follows_keep_a_changelog() -> None:
    """An Unreleased part first, and only the six kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)

    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", version) for version in versions[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_relative_links_lead_somewhere() -> None:
    """No page points at a file that is not there."""
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert broken == []
