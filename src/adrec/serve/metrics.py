"""Metrics of the service for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

QUERIES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """Counts of requests and their times, of batches and events, and which model answers."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.requests = Counter("adrec_requests", "Requests by path and status.", ["path", "status"], registry=own)
        self.seconds = Histogram("adrec_request_seconds", "Of a request.", ["path"], buckets=SECONDS, registry=own)
        self.batch = Histogram("adrec_batch_queries", "In a batch.", buckets=QUERIES, registry=own)
        self.inference = Histogram("adrec_batch_seconds", "Of a batch.", buckets=SECONDS, registry=own)
        self.queued = Gauge("adrec_queued_queries", "Queries that wait.", registry=own)
        self.failures = Counter("adrec_failures", "Requests that failed inside the service.", registry=own)
        self.events = Counter("adrec_events", "Events that were stored, each once.", registry=own)
        self.unlogged = Gauge("adrec_unlogged_lists", "Lists that could not be written to the log.", registry=own)
        self.model = Info("adrec_model", "The model that answers.", registry=own)

    def on_request(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def on_batch(self, number: int, seconds: float) -> None:
        """Count a batch of queries."""
        self.batch.observe(number)
        self.inference.observe(seconds)

    def on_events(self, number: int) -> None:
        """Count events that were stored."""
        self.events.inc(number)

    def on_model(self, digest: str, name: str) -> None:
        """Tell which model answers."""
        self.model.info({"digest": digest, "name": name})

    def on_failure(self) -> None:
        """Count a request that failed inside the service."""
        self.failures.inc()

    def page(self) -> bytes:
        """Return all metrics as text."""
        return generate_latest(self.registry)
