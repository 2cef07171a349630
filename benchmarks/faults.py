"""Faults of a service under load: kills, reloads, and how many events a second are stored.

    python -m benchmarks.faults RUN kill --times 100
    python -m benchmarks.faults RUN reload --times 50
    python -m benchmarks.faults RUN events --seconds 10

``kill``: several clients send events, each repeated until it is acknowledged; the service is killed (SIGKILL) at random
moments and started again. At the end every acknowledged event must be there, once. ``reload``: the model is loaded
anew while clients ask; every request must be answered. ``events``: lists of 100 events from four clients, each
acknowledged after it is on disk; then each next request must see the event before it.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from adrec.live.histories import OF_A_USER

CLIENTS = 4
FIRST = 10**9  # ids that no data set has: numbers, as where ids are texts they are taken as such


class Server:
    """A service in a process of its own, always on the same port."""

    def __init__(self, run: Path, *options: str) -> None:
        self.command = [sys.executable, "-m", "adrec", "serve", str(run), *options]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.process = subprocess.Popen([*self.command, "--port", str(self.port)], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        found = next(m for line in self.process.stderr if (m := re.search(r"at http://[^:]+:(\d+);", line)))
        self.port = int(found[1])

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal, and wait for the end."""
        self.process.send_signal(how)
        self.process.wait()

    def client(self) -> httpx.Client:
        """Return a client."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False, verify=False)


def kills(run: Path, times: int, store: str) -> dict[str, Any]:
    """Kill the service many times while events are sent."""
    server, ends, acknowledged = (
        Server(run, "--events", store),
        threading.Event(),
        [list[int]() for _ in range(CLIENTS)],
    )

    def send(who: int) -> None:
        number = 0
        while not ends.is_set():
            number += 1
            body = {"event_id": f"{who}-{number}", "user": FIRST + who, "item": FIRST + number, "time": number}
            while not ends.is_set():
                try:
                    with httpx.Client(
                        base_url=f"http://127.0.0.1:{server.port}", timeout=5, trust_env=False, verify=False
                    ) as client:
                        while not ends.is_set() and client.post("/v1/events", json=body).status_code == 200:
                            acknowledged[who].append(number)
                            number += 1
                            body |= {"event_id": f"{who}-{number}", "item": FIRST + number, "time": number}
                except httpx.TransportError:
                    time.sleep(0.2)

    threads = [threading.Thread(target=send, args=(who,)) for who in range(CLIENTS)]
    for each in threads:
        each.start()
    rng = random.Random(0)
    for done in range(times):
        time.sleep(rng.uniform(0.02, 0.6))
        server.end(signal.SIGKILL)
        server.start()
        if done % 20 == 19:
            print(f"{done + 1} kills, {sum(map(len, acknowledged)):,} events", flush=True)
    ends.set()
    for each in threads:
        each.join()
    lost = doubled = 0
    with server.client() as client:
        for who, numbers in enumerate(acknowledged):
            history = [int(each) for each in client.get(f"/v1/users/{FIRST + who}").json()["history"]]
            doubled += len(history) - len(set(history))
            lost += len({FIRST + number for number in numbers} - set(history))
    server.end()
    return {"kills": times, "acknowledged": sum(map(len, acknowledged)), "lost": lost, "doubled": doubled}


def reloads(run: Path, times: int) -> dict[str, Any]:
    """Load the model anew many times while clients ask."""
    server, ends = Server(run), threading.Event()
    statuses: dict[int, int] = {}
    latencies: list[float] = []

    def ask() -> None:
        with server.client() as client:
            while not ends.is_set():
                began = time.perf_counter()
                status = client.post("/v1/recommend", json={"user": "nobody"}).status_code
                latencies.append(1000 * (time.perf_counter() - began))
                statuses[status] = statuses.get(status, 0) + 1

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for each in threads:
        each.start()
    with server.client() as client:
        answers = [client.post("/v1/model/reload").status_code for _ in range(times)]
    ends.set()
    for each in threads:
        each.join()
    server.end()
    p = np.percentile(latencies, [50, 99])
    return {"reloads": answers.count(200), "statuses": statuses, "p50": round(p[0], 1), "p99": round(p[1], 1)}


def rates(run: Path, seconds: float, store: str) -> dict[str, Any]:
    """Store lists of events as fast as possible; then see that each next request knows of the event before it."""
    server, ends, stored = Server(run, "--events", store), time.monotonic() + seconds, [0] * CLIENTS

    def send(who: int) -> None:
        with server.client() as client:
            while time.monotonic() < ends:
                first = stored[who]
                body = [
                    {"event_id": f"{who}-{first + at}", "user": FIRST + first + at, "item": FIRST, "time": 1}
                    for at in range(100)
                ]
                stored[who] += client.post("/v1/events", json=body).json()["stored"]

    threads = [threading.Thread(target=send, args=(who,)) for who in range(CLIENTS)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    seen = 0
    with server.client() as client:
        for number in range(10_000):
            client.post(
                "/v1/events", json={"event_id": f"n{number}", "user": -1, "item": FIRST + number, "time": number}
            )
            answer = client.post("/v1/recommend", json={"user": -1, "k": 1}).json()
            seen += answer["history"]["interactions"] == min(number + 1, OF_A_USER)
    server.end()
    return {"events_a_second": round(sum(stored) / seconds), "next_requests_that_saw": seen}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("what", choices=("kill", "reload", "events"))
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--store", help="URL of an empty PostgreSQL database; SQLite by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = given.store or str(Path(folder) / "events.db")
        if given.what == "kill":
            found = kills(given.run, given.times, store)
        elif given.what == "reload":
            found = reloads(given.run, given.times)
        else:
            found = rates(given.run, given.seconds, store)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
