"""What the pages for people say about organisation files, held against the structs that read them."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from services.console.core.document import parse_organisation
from shared.contracts import organisation
from shared.contracts.organisation import Strict

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "organisation.md").read_text()
PARTS = [part for part in vars(organisation).values() if isinstance(part, type) and issubclass(part, Strict)]
YAML = [
    (page, block)
    for page in ("README.md", "docs/organisation.md")
    for block in re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]


@pytest.mark.parametrize("part", PARTS)
def test_the_reference_names_every_field(part: type[Strict]) -> None:
    code = " ".join(re.findall(r"`([^`\n]+)`", REFERENCE))
    named = set(re.findall(r"\w+", code))
    assert {field.encode_name for field in msgspec.structs.fields(part)} <= named


@pytest.mark.parametrize(("page", "block"), YAML)
def test_organisation_files_shown_can_be_read(page: str, block: str) -> None:
    assert parse_organisation(block.encode(), is_json=False).customers, page


def test_settings_of_claude_code_shown_are_json() -> None:
    page = (ROOT / "docs" / "claude-code.md").read_text()
    shown = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]
    assert shown
    assert all(set(block) <= {"env", "statusLine"} for block in shown)


@pytest.mark.parametrize(
    "page", sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("services/*/README.md")]), ids=str
)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []
