"""The latency of a service under an open load: requests are sent on time, whether or not earlier ones are answered.

    python -m benchmarks.serving RUN --rate 500 --seconds 60

It starts ``adrec serve RUN`` and sends one history a request, drawn from the run's data set. A request's latency runs
from the moment at which it was due, so a service that falls behind shows it. Prints the percentiles; ``--json`` writes
them to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from adrec import ADRec


class Client(asyncio.Protocol):
    """A connection that sends one request after another, each answered before the next."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future[int] | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits."""
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionResetError())

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = re.search(rb"content-length: (\d+)", head)
        if length is not None and len(body) >= int(length[1]) and self.waiting is not None:
            self.received = b""
            waiting, self.waiting = self.waiting, None
            waiting.set_result(int(head[9:12]))

    async def ask(self, request: bytes) -> int:
        """Send a request; return the status of the answer."""
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)  # type: ignore[attr-defined]
        return await self.waiting


async def load(port: int, requests: list[bytes], rate: float, seconds: float) -> tuple[np.ndarray, dict[int, int]]:
    """Return the latency of each request in milliseconds, and the number of answers by status."""
    loop, latencies, statuses = asyncio.get_running_loop(), list[float](), dict[int, int]()
    idle: list[Client] = []

    async def one(due: float, request: bytes) -> None:
        while idle and idle[-1].transport.is_closing():
            idle.pop()
        client = idle.pop() if idle else (await loop.create_connection(Client, "127.0.0.1", port))[1]
        try:
            status = await client.ask(request)
        except ConnectionResetError:
            status = 0
        latencies.append(1000 * (time.perf_counter() - due))
        statuses[status] = statuses.get(status, 0) + 1
        idle.append(client)

    tasks, began = [], time.perf_counter() + 0.1
    for number in range(int(rate * seconds)):
        due = began + number / rate
        if (early := due - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        tasks.append(asyncio.create_task(one(due, requests[number % len(requests)])))
    await asyncio.gather(*tasks)
    return np.array(latencies), statuses


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rate", type=float, nargs="+", default=[500.0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--longest", type=int, default=50, help="items of a history, at most")
    parser.add_argument("--onnx", action="store_true", help="serve with ONNX Runtime, from RUN/onnx")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    dataset = ADRec.load(given.run, device="cpu").recommender().dataset
    ids = dataset.catalogue.ids.to_list()
    users = np.random.default_rng(0).permutation(dataset.num_users)[:2000]
    bodies = [json.dumps({"history": [ids[i - 1] for i in dataset.history(u)[-given.longest :]]}) for u in users]
    head = "POST /v1/recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n\r\n{}"
    requests = [head.format(len(body.encode()), body).encode() for body in bodies]
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "adrec", "serve", str(given.run), "--port", "0", *(["--onnx"] if given.onnx else [])],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    found = next(match for line in server.stderr if (match := re.search(r"at http://[^:]+:(\d+);", line)))
    ready = time.perf_counter() - began
    print(f"start to ready: {ready:.1f} s")
    rows = []
    gc.collect()
    gc.freeze()  # the load generator must not pause
    try:
        asyncio.run(load(int(found[1]), requests, 100, 3))
        for rate in given.rate:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
            latencies, statuses = asyncio.run(load(int(found[1]), requests, rate, given.seconds))
            own = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
            p = np.percentile(latencies, [50, 90, 99, 99.9])
            row = {"rate": rate, "seconds": given.seconds, "statuses": statuses, "ready": ready}
            row |= dict(zip(("p50", "p90", "p99", "p99.9"), (round(float(each), 2) for each in p), strict=True))
            rows.append(row | {"load_generator_core_seconds": round(own, 1)})
            print(rows[-1], flush=True)
    finally:
        server.terminate()
        server.wait()
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
