"""Requests that nobody should send: whatever comes, no error of the service, and no memory that grows."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.server import started

pytestmark = pytest.mark.slow
FUZZED = ("POST", "/v1/recommend"), ("POST", "/v1/similar"), ("POST", "/v1/events"), ("DELETE", "/v1/users/{}")
CHECKS = (
    "status_code_conformance,content_type_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method"
)


def memory_of(process: int) -> int:
    """Return the bytes that a process has in memory; 0 where the system does not tell."""
    status = Path(f"/proc/{process}/status")
    if not status.is_file():
        return 0
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmRSS"))


@pytest.fixture(scope="module")
def service(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[httpx.Client, int]]:
    folder = tmp_path_factory.mktemp("fuzz")
    process, client = started(small_run, "--events", folder / "events.db", "--log", folder / "shown.jsonl")
    yield client, process.pid
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and "Traceback" not in errors, errors


def healthy(client: httpx.Client) -> None:
    assert client.get("/readyz").status_code == 200
    page = client.get("/metrics").text
    assert "adrec_failures_total 0.0" in page
    statuses = set(re.findall(r'adrec_requests_total\{.*status="(\d+)"', page))
    assert {status for status in statuses if status >= "500"} <= {"503"}  # a deadline of a millisecond


def test_what_the_interface_describes(service: tuple[httpx.Client, int], tmp_path: Path) -> None:
    client, _ = service
    done = subprocess.run(
        [
            Path(sys.executable).with_name("st"), "run", f"{client.base_url}/openapi.json", "--checks", CHECKS,
            "--max-examples", "100", "--seed", "1", "--request-timeout", "20", "--generation-database", "none",
        ],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    healthy(client)


def rubbish(rng: random.Random, depth: int = 0) -> str:
    """Return a text that is JSON, nearly JSON, or none."""
    kind = rng.randrange(14)
    if kind < 3 and depth < 6:
        return "[" + ",".join(rubbish(rng, depth + 1) for _ in range(rng.randrange(4))) + "]"
    if kind < 7 and depth < 6:
        names = [
            "user",
            "history",
            "k",
            "allow",
            "block",
            "filter",
            "slate",
            "explain",
            "seen",
            "item",
            "event_id",
            "time",
            "x",
        ]
        pairs = (f'"{rng.choice(names)}":{rubbish(rng, depth + 1)}' for _ in range(rng.randrange(5)))
        return "{" + ",".join(pairs) + "}"
    plain = [
        "NaN", "Infinity", "-1", "0", "1e999", "9" * 5000, "1.5", "true", "null", '""', '"item 3"', '"\\ud800"',
        '"\\u0000"',
        '"' + "a" * 3000 + '"', "[" * 5000, '{"a":' * 3000, "'", '"item', "\x00", '"2020-99-99T00:00:00Z"', "\udcff",
    ]  # fmt: skip
    return rng.choice(plain)


def test_rubbish(service: tuple[httpx.Client, int]) -> None:
    client, process = service
    rng, statuses, memory = random.Random(7), dict[int, int](), list[int]()
    for number in range(3000):
        method, path = rng.choice(FUZZED)
        content = rubbish(rng).encode("utf-8", "surrogateescape")
        if rng.random() < 0.1:
            content = rng.randbytes(rng.randrange(200))
        user = "".join(chr(rng.choice([37, 47, 46, 65, 233, 0x1F600, 63, 35])) for _ in range(5))
        quoted = path.format(httpx.URL("http://x", params={"q": user}).query[2:].decode())
        answer = client.request(method, quoted, content=content)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (content[:200], answer.text)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", answer.text
        if number % 500 == 499:
            memory.append(memory_of(process))
    assert len(statuses) > 3
    assert memory[-1] < memory[1] * 1.1 + (8 << 20), memory
    healthy(client)


def test_large_bodies_and_slow_clients(service: tuple[httpx.Client, int]) -> None:
    client, process = service
    before = memory_of(process)
    address = (client.base_url.host, client.base_url.port or 80)
    idle = [socket.create_connection(address) for _ in range(100)]
    for each in idle[:50]:
        each.sendall(b"POST /v1/recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{")
    for each in idle[50:]:
        each.sendall(b"POST /v1/recommend HT")

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b"[" * (1 << 20)

    for _ in range(3):
        with contextlib.suppress(httpx.TransportError):  # the service does not read on
            assert client.post("/v1/recommend", content=chunks()).status_code == 413
    latencies = []
    for _ in range(30):
        began = time.perf_counter()
        assert client.post("/v1/recommend", json={"history": ["item 1"]}).status_code == 200
        latencies.append(time.perf_counter() - began)
    assert sorted(latencies)[15] < 1
    answers: list[Any] = []
    for each in idle[:50]:
        each.settimeout(30)
        answers.append(each.recv(100))
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers), answers[:3]
    for each in idle:
        each.close()
    assert memory_of(process) < before + (64 << 20)
    healthy(client)
