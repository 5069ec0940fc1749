"""What is counted, in Prometheus' text format. Every server has a registry of its own."""

from __future__ import annotations

import contextlib
from collections import Counter as Tally
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from unipetl.serving.batching import Item, Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, gauges and histograms of one server.

    Labels take few values: endpoints are routes and no paths, and attachments are those that are served.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "unipetl_requests", "Requests answered.", ("endpoint", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "unipetl_request_seconds", "Time to answer.", ("endpoint",), buckets=_SECONDS, registry=self.registry
        )
        self._rows = Counter(
            "unipetl_rows", "Texts computed, by attachment.", ("action", "attachment"), registry=self.registry
        )
        self._batch_rows = Histogram(
            "unipetl_batch_rows", "Texts of a batch.", ("action",), buckets=_ROWS, registry=self.registry
        )
        self._batch_attachments = Histogram(
            "unipetl_batch_attachments", "Attachments of a batch.", ("action",), buckets=_ROWS, registry=self.registry
        )
        self._batch_seconds = Histogram(
            "unipetl_batch_seconds", "Time of a batch.", ("action",), buckets=_SECONDS, registry=self.registry
        )
        self._dropped = Counter(
            "unipetl_dropped_rows", "Texts dropped while waiting: timed out or hung up.", registry=self.registry
        )
        self._waiting = Gauge("unipetl_waiting_rows", "Texts that wait.", registry=self.registry)
        self._attachments = Gauge("unipetl_attachments", "Attachments served.", registry=self.registry)

    def watch(self) -> Watch:
        """Return what a batcher tells."""
        return Watch(self._batch, self._dropped.inc)

    def watch_state(self, waiting: Callable[[], int], attachments: Callable[[], int]) -> None:
        """Ask for the state of the server when the metrics are read."""
        self._waiting.set_function(waiting)
        self._attachments.set_function(attachments)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def forget(self, attachment: str) -> None:
        """Show an attachment no more."""
        for action in ("classify", "generate", "embed"):
            with contextlib.suppress(KeyError):
                self._rows.remove(action, attachment)

    def text(self) -> bytes:
        """Return everything, as Prometheus reads it."""
        return generate_latest(self.registry)

    def _batch(self, items: Sequence[Item], seconds: float) -> None:
        action = items[0].work.action
        rows = Tally(item.work.served.name or "" for item in items)
        for name, count in rows.items():
            self._rows.labels(action, name).inc(count)
        self._batch_rows.labels(action).observe(len(items))
        self._batch_attachments.labels(action).observe(len(rows))
        self._batch_seconds.labels(action).observe(seconds)
