"""Examples on the pages are read by the code that they are examples for."""

import re
from pathlib import Path

import msgspec
import pytest

from dwcp_migrate import config
from dwcp_migrate.orchestration.fleet_source import FleetSettings
from dwcp_migrate.placement.fleet import decode_fleet

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


CONFIGURATIONS = [(page, text) for page in PAGES for text in blocks(page, "toml")]


@pytest.mark.parametrize(("page", "text"), CONFIGURATIONS, ids=[page.name for page, _ in CONFIGURATIONS])
def test_a_configuration_on_a_page_is_accepted(page: Path, text: str) -> None:
    assert config.parse(text) != config.Config(), page


def test_the_fleet_and_the_settings_of_the_placement_page_are_accepted() -> None:
    fleet, settings = blocks(REPOSITORY / "docs/placement.md", "json")
    assert len(decode_fleet(fleet.encode()).domains) == 2
    assert msgspec.json.decode(settings, type=FleetSettings).reserve_hosts == 1
