"""Imports go down: a package imports from the packages below it and from itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import adrec

SOURCE = Path(adrec.__file__).parent
# From the bottom to the top.
LAYERS = (
    "utils",
    "config",
    "data",
    "live",
    "nn",
    "models",
    "inference",
    "evaluate",
    "train",
    "augment",
    "runs",
    "published",
    "diagnose",
    "bench",
    "api",
    "bulk",
    "export",
    "serve",
    "cli",
)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the package of everything that a file imports from adrec, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{each.name}" if node.module == "adrec" else node.module for each in node.names]
        elif isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        for name in names:
            root, *parts = name.split(".")
            if root == "adrec" and parts:
                yield node.lineno, parts[0]


def test_every_package_has_a_layer() -> None:
    packages = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert packages == set(LAYERS)


def test_imports_go_down() -> None:
    up = []
    for path in sorted(SOURCE.rglob("*.py")):
        package = path.relative_to(SOURCE).parts[0]
        if package not in LAYERS:  # the package itself, which gives the public names
            continue
        for line, other in imported(path):
            if other in LAYERS and LAYERS.index(other) > LAYERS.index(package):
                up.append(f"{path.relative_to(SOURCE)}:{line} imports {other}")
    assert up == []
