"""The house keeps its shape: folders import downward only, and no two files import each other."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "retrieval_kd"

# From the ground floor up: a folder imports only from what stands before it. docs/architecture.md
# says the same to people.
FLOORS = (
    "root",
    "data",
    "objectives",
    "metrics",
    "store",
    "models",
    "targets",
    "students",
    "indexing",
    "retrieval",
    "teachers",
    "training",
    "evaluation",
    "serving",
    "audit",
    "generation",
    "config",
    "pipeline",
    "cli",
)


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The package's modules that a file imports, inside functions and TYPE_CHECKING blocks too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in inner}
    return found


def floor(module: str) -> str:
    """The folder of a module; files in the package's root are the ground floor."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "root"


GRAPH = {
    name: imports(path, modules()) - {"retrieval_kd"}
    for name, path in modules().items()
    if name not in ("retrieval_kd", "retrieval_kd.__main__")  # faces of the whole package
}


@pytest.mark.parametrize("folder", FLOORS)
def test_a_folder_imports_only_from_the_floors_below_it(folder):
    allowed = set(FLOORS[: FLOORS.index(folder) + 1])
    upward = sorted(
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        if floor(name) == folder
        for other in others
        if floor(other) not in allowed
    )
    assert not upward


def test_every_folder_stands_on_a_floor():
    assert {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"} == (
        set(FLOORS) - {"root"}
    )


def test_no_two_files_import_each_other_even_in_a_circle():
    TopologicalSorter(GRAPH).prepare()  # raises CycleError with the circle


def test_the_root_holds_at_most_eight_modules():
    assert len(list(PACKAGE.glob("*.py"))) <= 8


def test_every_file_is_under_400_lines():
    long = {name for name, path in modules().items() if len(path.read_text().splitlines()) >= 400}
    assert not long
