"""The layout: imports point one way and never in a circle; files and functions stay short."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import safegen

ROOT = Path(safegen.__file__).parent
TESTS = Path(__file__).parent
ORDER = (
    "__main__ safegen cli lab play release report evaluation metrics results attacks editing",
    "defenses patches observers triplets detectors prompts models profiles averaging muon",
    "checkpoints concepts registry seeds settings statistics tensors files errors version",
)
"""The package's folders and files, each importing none but what stands after it, and its own."""
ROOMS = " ".join(ORDER).split()
LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


PATHS = {_module(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in PATHS.items()}


def _imported(tree: ast.AST) -> Iterator[str]:
    """What a file imports, wherever in it: modules, and names that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in TREES else str(node.module) for name in names)


GRAPH = {module: sorted({*_imported(tree)} & {*TREES}) for module, tree in TREES.items()}
EDGES = [(module, other) for module, others in GRAPH.items() for other in others]


def _room(module: str) -> str:
    return module.removeprefix("safegen.").partition(".")[0]


def test_every_file_has_its_place() -> None:
    assert {_room(module) for module in TREES} == {*ROOMS}


def test_no_import_points_upwards() -> None:
    rooms = [(_room(module), _room(other)) for module, other in EDGES]
    upward = [
        f"{edge[0]} imports {edge[1]}"
        for edge, (above, below) in zip(EDGES, rooms, strict=True)
        if ROOMS.index(above) > ROOMS.index(below)
    ]
    assert upward == []


def test_no_files_import_each_other_in_a_circle() -> None:
    TopologicalSorter(GRAPH).prepare()  # a CycleError names the files


def test_only_the_command_line_knows_the_lab() -> None:
    knowing = {_room(module) for module, other in EDGES if _room(other) == "lab"}
    assert knowing <= {"lab", "cli"}


def test_files_and_functions_are_short() -> None:
    tests = {str(path.relative_to(TESTS.parent)): path for path in sorted(TESTS.rglob("*.py"))}
    long = [
        name
        for name, path in (PATHS | tests).items()
        if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE
    ]
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                if (node.end_lineno or first) - first >= LONGEST_FUNCTION:
                    long.append(f"{module}.{node.name}")
    assert long == []
