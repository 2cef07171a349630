"""What the container image does, outside a container: what it installs, what it starts, and its health check."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from adrec.serve.keys import new_key
from serve.server import started

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instruction(name: str) -> list[str]:
    """Return the arguments of the last instruction of a name, in its JSON form."""
    found = re.findall(rf"^\s*{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
    arguments: list[str] = json.loads(found[-1])
    return arguments


def test_what_the_image_starts(small_run: Path, tmp_path: Path) -> None:
    key, digest = new_key()
    (tmp_path / "keys").write_text(f"{digest}\n")
    assert instruction("ENTRYPOINT") == ["adrec"]
    command, run, *options = instruction("CMD")
    assert (command, run) == ("serve", "/runs/final")
    places = {"/keys": str(tmp_path / "keys"), "/state/events.db": str(tmp_path / "events.db")}
    process, client = started(small_run, *(places.get(each, each) for each in options))
    try:
        check = re.search(r"HEALTHCHECK .*\n\s*CMD (\[.*\])", DOCKERFILE)
        assert check is not None
        own = [each.replace(":8000", f":{client.base_url.port}") for each in json.loads(check[1])]
        own[0] = sys.executable
        assert subprocess.run(own, capture_output=True, check=False).returncode == 0
        asked = {"Authorization": f"Bearer {key}"}
        local = f"http://127.0.0.1:{client.base_url.port}"
        assert client.post(f"{local}/v1/recommend", json={"user": "user 1"}).status_code == 401
        assert client.post(f"{local}/v1/recommend", json={"user": "user 1"}, headers=asked).status_code == 200
    finally:
        process.terminate()
        process.wait(timeout=30)
    assert subprocess.run(own, capture_output=True, check=False).returncode != 0  # when it is down


def test_the_compose_file_starts_it_alike() -> None:
    text = (ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    own = re.search(r"command:\n((?:\s+- .*\n)+)", text)
    assert own is not None
    options = [line.strip().removeprefix("- ").partition("=")[0] for line in own[1].splitlines()]
    assert options[:2] == ["serve", "/runs/final"] and set(options[2:]) == {"--host", "--api-key-file", "--events"}


@pytest.mark.slow
def test_what_the_image_installs(tmp_path: Path) -> None:
    """The files that .dockerignore lets through make a wheel with the page, and with the extras that are named."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for each in copied for name in shlex.split(each)} <= set(allowed)
    context = tmp_path / "context"
    context.mkdir()
    for name in allowed:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, context / name)
    built = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "--wheel-dir", tmp_path, context]
    subprocess.run(built, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("adrec-*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert {f"adrec/serve/page/page.{kind}" for kind in ("html", "js", "css")} <= set(names)
    extras = re.search(r"'\.\[(.*)\]'", DOCKERFILE)
    assert extras is not None
    assert set(extras[1].split(",")) <= set(re.findall(r"Provides-Extra: (\S+)", metadata))
