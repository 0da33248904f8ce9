"""The documentation names files that exist, and commands and options that the command line has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from retrieval_kd.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND = re.compile(r"\brkd ([a-z][a-z-]*)((?:[^\n`|]|\\\n)*)")


def named(page: Path) -> list[str]:
    return re.findall(r"`([\w./-]+\.py)`", page.read_text("utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_file_that_a_page_names_exists(page):
    folder = ROOT / "retrieval_kd"
    missing = []
    for name in named(page):
        places = [ROOT / name, ROOT / "retrieval_kd" / name]
        if "/" not in name:  # beside the file named before it
            places.append(folder / name)
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            missing.append(name)
        else:
            folder = found.parent
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_that_a_page_names_exists(page):
    commands = get_command(app).commands
    text = page.read_text("utf-8").replace("\\\n", " ")
    wrong = []
    for name, rest in COMMAND.findall(text):
        command = commands.get(name)
        if command is None:
            wrong.append(f"rkd {name}")
            continue
        words = rest.split()
        if hasattr(command, "commands"):
            command = command.commands.get(words[0]) if words else None
            if command is None:
                continue
        options = {option for parameter in command.params for option in parameter.opts}
        used = re.findall(r"(?<=[\s\[(])--[a-z][a-z-]*", rest.partition("#")[0])
        wrong += [f"rkd {name} {option}" for option in used if option not in {*options, "--help"}]
    assert not wrong


def test_every_link_between_pages_leads_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
            path, _, anchor = target.partition("#")
            if "://" in target or target.startswith("mailto:"):
                continue
            file = (page.parent / path).resolve() if path else page
            lost = anchor and file.suffix == ".md" and file.exists() and anchor not in anchors(file)
            if lost or not file.exists():
                broken.append(f"{page.name}: {target}")
    assert not broken


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
