"""The documentation: links lead to files, and the commands, options and configuration keys in it exist."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from adrec.cli.app import app
from adrec.config.adrec import Config

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(each for each in (ROOT / "docs").rglob("*.md") if each.parent.name != "prefaces")]
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"(?:^\$ |^|`|\| )adrec ([a-z][\w-]*)([^`\n|#]*)", re.MULTILINE)
KEY = re.compile(r"--set ([\w.]+)=")


def commands() -> Iterator[tuple[str, str, str]]:
    """Yield the page, the command and its arguments, for every command line in the documentation."""
    for page in PAGES:
        for name, arguments in COMMAND.findall(page.read_text(encoding="utf-8")):
            yield str(page.relative_to(ROOT)), name, arguments


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_table_of_the_tutorial_is_written(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "examples" / "make_orders.py"], cwd=tmp_path, check=True)
    page = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    assert "\n".join((tmp_path / "orders.csv").read_text(encoding="utf-8").splitlines()[:3]) in page


def test_commands_and_their_options_exist() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    found = list(commands())
    assert len(found) > 50
    wrong = []
    for page, name, arguments in found:
        options = (
            {option for each in known[name].params for option in each.opts + each.secondary_opts}
            if name in known
            else ()
        )
        wrong += [f"{page}: adrec {name}{arguments}"] if name not in known else []
        wrong += [f"{page}: {name} {each}" for each in re.findall(r"--[\w-]+", arguments) if each not in options]
    assert wrong == []


def test_configuration_keys_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    keys = {key for key in KEY.findall(text) if not key.startswith("train.")}  # baselines have the stage train
    assert len(keys) > 5
    for key in keys:
        Config.full_key(key, ("pretrain", "align"))  # raises
