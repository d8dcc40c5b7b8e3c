"""What a worker measures, in one place: each stage calls one method here, for its metrics and its log."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from time import perf_counter

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric as Family

from app.metrics import definitions as d
from app.metrics.prometheus_metrics import Labels, counter, gauge, histogram, value_family
from app.tracing import Tracing

__all__ = ["Event", "Recorder", "Stage"]


class Event(StrEnum):
    """Each counted by model."""

    PROMPT_HIT = "prompt_hit"  # a prompt's embeddings were at hand
    PROMPT_MISS = "prompt_miss"
    MODEL_LOADED = "model_loaded"
    MODEL_EVICTED = "model_evicted"  # to make room for another
    MODEL_FAILED = "model_failed"  # could not be loaded
    LORA_HIT = "lora_hit"  # a LoRA of a job was on the device
    LORA_LOADED = "lora_loaded"  # onto the device
    LORA_EVICTED = "lora_evicted"  # to make room for another
    OUT_OF_MEMORY = "out_of_memory"  # a module call ran out of memory, and is repeated with fewer rows or fails
    CALL_RAISED = "call_raised"  # a module call raised, and is repeated by halves to find the request at fault
    PREEMPTED = "preempted"  # a step of a newer request went before one of a request in progress
    NAN_OUTPUT = "nan_output"  # an image that is no numbers
    RECOMPILE_LIMIT = (
        "recompile_limit"  # a compiled function has too many graphs; further kinds of calls run uncompiled
    )


class Stage(StrEnum):
    ENCODE = "encode"  # of an image: from the begin of its pipeline call until it waits for its first denoiser call
    DENOISE = "denoise"  # of an image, waiting for other calls included
    DECODE = "decode"
    FILE = "file"  # of a job: from pixels to a file's bytes
    STORE = "store"  # of a file: until it can be fetched


#: The metric that shows an event, and the value of its second label, if it has one.
SHOWN: dict[Event, tuple[d.Metric, *tuple[str, ...]]] = {
    Event.PROMPT_HIT: (d.PROMPTS, "hit"),
    Event.PROMPT_MISS: (d.PROMPTS, "miss"),
    Event.MODEL_LOADED: (d.MODELS, "loaded"),
    Event.MODEL_EVICTED: (d.MODELS, "evicted"),
    Event.MODEL_FAILED: (d.MODELS, "failed"),
    Event.LORA_HIT: (d.LORAS, "hit"),
    Event.LORA_LOADED: (d.LORAS, "loaded"),
    Event.LORA_EVICTED: (d.LORAS, "evicted"),
    Event.OUT_OF_MEMORY: (d.FAULTS, "out_of_memory"),
    Event.CALL_RAISED: (d.FAULTS, "raised"),
    Event.PREEMPTED: (d.PREEMPTIONS,),
    Event.NAN_OUTPUT: (d.FAULTS, "nan_output"),
    Event.RECOMPILE_LIMIT: (d.FAULTS, "recompile_limit"),
}


class Recorder:
    """Written by the torch threads and the loop, read by the metrics' own thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tracing: Tracing | None = None
        self._counts: Counter[tuple[Event, str]] = Counter()
        self._lock = threading.Lock()
        self._in_flight = gauge(d.IN_FLIGHT, self.registry)
        self._first_steps = histogram(d.FIRST_STEP, self.registry)
        self._stages = histogram(d.STAGE, self.registry)
        self._steps = histogram(d.STEP, self.registry)
        self._call_images = histogram(d.CALL_IMAGES, self.registry)
        self._call_rows = histogram(d.CALL_ROWS, self.registry)
        self._pixels = counter(d.PIXELS, self.registry)
        self._loads = histogram(d.LOAD, self.registry)
        self._lora_bytes = gauge(d.LORA_BYTES, self.registry)
        self._lora_reads = histogram(d.LORA_READ, self.registry)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def add(self, event: Event, model: str, count: int = 1) -> None:
        with self._lock:
            self._counts[event, model] += count

    def of(self, event: Event, model: str | None = None) -> int:
        """Returns how often the event occurred, for a model or for all."""
        return sum(n for (each, name), n in self.counts().items() if each == event and model in (None, name))

    def counts(self) -> dict[tuple[Event, str], int]:
        """Returns every counter, by event and model."""
        with self._lock:
            return dict(self._counts)

    def begin_images(self, model: str, images: int) -> None:
        """Counts images or videos that come into the engine."""
        self._in_flight.labels(model).inc(images)

    def end_images(self, model: str, images: int) -> None:
        """Counts images or videos that leave the engine, whatever became of them."""
        self._in_flight.labels(model).dec(images)

    def denoiser_call(self, model: str, guidance: str, images: int, rows: int, pixels: int, seconds: float) -> None:
        """Records one denoiser call for so many images or videos; `pixels` are those of all its rows."""
        self._steps.labels(model, guidance).observe(seconds)
        self._call_images.labels(model).observe(images)
        self._call_rows.labels(model).observe(rows)
        self._pixels.labels(model, guidance).inc(pixels)

    def first_step(self, model: str, seconds: float) -> None:
        """Records the wait of a job for its first denoiser call."""
        self._first_steps.labels(model).observe(seconds)

    def image(self, model: str, encode_ms: float, denoise_ms: float, decode_ms: float) -> None:
        """Records the stages of one image or video that was generated."""
        for stage, taken_ms in (
            (Stage.ENCODE, encode_ms), (Stage.DENOISE, denoise_ms), (Stage.DECODE, decode_ms)
        ):  # fmt: skip
            self._stages.labels(model, stage.value).observe(taken_ms / 1000)

    @contextmanager
    def timed(self, stage: Stage, model: str) -> Iterator[None]:
        begun_s = perf_counter()
        yield
        self._stages.labels(model, stage.value).observe(perf_counter() - begun_s)

    def loaded(self, model: str, took_s: float) -> None:
        self.add(Event.MODEL_LOADED, model)
        self.add(Event.PREEMPTED, model, 0)  # shown from the start, since a rate needs the 0 before the first one
        self._loads.labels(model).observe(took_s)

    def lora_read(self, model: str, seconds: float) -> None:
        """Records that a LoRA's file was read."""
        self._lora_reads.labels(model).observe(seconds)

    def lora_bytes(self, model: str, count: int) -> None:
        """Records how much the LoRAs of a model take of the device's memory."""
        self._lora_bytes.labels(model).set(count)

    def collect(self) -> Iterator[Family]:
        """Returns the counted events, as prometheus_client asks for them."""
        values: dict[d.Metric, dict[Labels, float]] = {metric: {} for metric, *_ in SHOWN.values()}
        for (event, model), n in self.counts().items():
            metric, *words = SHOWN[event]
            values[metric][model, *words] = n
        return (value_family(metric, each) for metric, each in values.items())
