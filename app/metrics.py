"""What the API measures, declared once. Labels are models of the catalog and short fixed words, never an id or a text.

Every job is counted once in the whole service: by the API process that accepted it, from the job's own echo.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.jobs import Job

__all__ = ["Metrics"]

#: Seconds; a 64-pixel picture on a CPU and a video on a GPU both fall inside.
BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
#: Accepted jobs remembered until they are seen finished; the oldest are forgotten, uncounted, beyond this.
PENDING_MAX = 100_000
#: An error code or a reason becomes a label only in this shape, and only the first so many different ones.
WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")
WORDS_MAX = 40


class Metrics:
    """One registry an app, so that several apps may live in a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pending: OrderedDict[str, None] = OrderedDict()
        self._words: set[str] = set()
        self._jobs = Counter("nag_jobs", "Finished jobs.", ("model", "outcome", "error_code"), registry=self.registry)
        self._guidance = Counter(
            "nag_guidance",
            "Completed jobs by what became of NAG.",
            ("model", "applied", "reason"),
            registry=self.registry,
        )
        self._attempts = Counter(
            "nag_job_retries", "Runs of finished jobs beyond the first.", ("model",), registry=self.registry
        )
        stages = {
            "total_ms": ("nag_e2e_request_latency_seconds", "From acceptance to the stored result."),
            "queue_ms": ("nag_request_queue_time_seconds", "Waiting for a worker."),
            "encode_ms": ("nag_request_encode_time_seconds", "Encoding the prompts."),
            "denoise_ms": ("nag_request_denoise_time_seconds", "All denoising steps."),
            "decode_ms": ("nag_request_decode_time_seconds", "From latents to the stored file."),
        }
        self._stages = {
            stage: Histogram(name, help_, ("model",), buckets=BUCKETS_S, registry=self.registry)
            for stage, (name, help_) in stages.items()
        }
        self._depth = Gauge("nag_queue_depth", "Jobs waiting for a worker.", ("model",), registry=self.registry)
        self._workers = Gauge("nag_workers_alive", "Workers heard of lately.", registry=self.registry)
        self._warm = Gauge("nag_warm_workers", "Workers holding the model.", ("model",), registry=self.registry)
        self._redis_up = Gauge("nag_redis_up", "1 while the queue can be reached.", registry=self.registry)

    def accepted(self, job_id: str) -> None:
        """This process took the job in, and will count it."""
        self.pending[job_id] = None
        if len(self.pending) > PENDING_MAX:
            self.pending.popitem(last=False)

    def observe(self, job: Job) -> None:
        """Count the job if it has finished, was accepted here, and was not counted yet."""
        if not job.status.terminal or job.id not in self.pending:
            return
        del self.pending[job.id]
        model = job.request.model
        code = "" if job.error is None else self._word(job.error.code)
        self._jobs.labels(model, job.status.value, code).inc()
        self._attempts.labels(model).inc(max(0, job.attempts - 1))
        if job.result is not None:
            nag = job.result.nag
            reason = "" if nag.reason is None else self._word(nag.reason)
            self._guidance.labels(model, str(nag.applied).lower(), reason).inc()
            for stage, histogram in self._stages.items():
                histogram.labels(model).observe(getattr(job.result.timings, stage) / 1000)

    def read_queue(self, depths: Mapping[str, int], workers: Mapping[str, list[str]]) -> None:
        """Set the gauges; called when they are asked for, so that they are never stale."""
        self._redis_up.set(1)
        self._workers.set(len(workers))
        for model, depth in depths.items():
            self._depth.labels(model).set(depth)
            self._warm.labels(model).set(sum(model in warm for warm in workers.values()))

    def queue_unreachable(self) -> None:
        """Drop the gauges rather than show what was true once."""
        self._redis_up.set(0)
        self._workers.set(float("nan"))
        self._depth.clear()
        self._warm.clear()

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def _word(self, text: str) -> str:
        if WORD.fullmatch(text) is None or (text not in self._words and len(self._words) >= WORDS_MAX):
            return "other"
        self._words.add(text)
        return text
