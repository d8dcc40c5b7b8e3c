"""The panels of the dashboards. Queries name metrics by their declaration, so that a renamed one is not forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.metrics import definitions as d
from queries import MODEL, WINDOW, Query, mean, now, quantiles, raw, total

__all__ = ["DASHBOARDS", "Panel"]


@dataclass(frozen=True)
class Panel:
    """`unit` is one of Grafana's."""

    title: str
    help: str
    unit: str
    queries: Sequence[Query]
    stacked: bool = False
    needs_gpu: bool = False


HIT, APPLIED = 'outcome="hit"', 'applied="true"'

SERVICE = (
    Panel("Requests", "Jobs queued a second.", "reqps", [total(d.JOBS_ACCEPTED, "model, priority")], stacked=True),
    Panel("Ends", "Jobs that ended, by how.", "reqps", [total(d.JOBS, "model, outcome")], stacked=True),
    Panel(
        "Failed",
        "Of the jobs not cancelled. Alert NagErrorRateHigh.",
        "percentunit",
        [raw(f"nag:jobs_failed:ratio5m{{{MODEL}}}", "model")],
    ),
    Panel("End to end", "From acceptance to the stored result.", "s", quantiles(d.E2E, "model")),
    Panel("Waiting for a worker", "Of completed jobs.", "s", quantiles(d.QUEUE_TIME, "model")),
    Panel("Errors by code", "A second.", "reqps", [total(d.ERRORS, "model, error_code")], stacked=True),
    Panel(
        "Queue",
        "Jobs waiting; the limit is where 429 begins. Alert NagQueueNearlyFull.",
        "short",
        [now(d.DEPTH, "model, priority"), now(d.LIMIT, prefix="limit")],
    ),
    Panel("Oldest waiting job", "Alert NagQueueWaitLong.", "s", [now(d.OLDEST, "model, priority")]),
    Panel("At work", "Jobs that a worker holds.", "short", [now(d.RUNNING, "model")]),
    Panel(
        "Workers",
        "Alive, and how many hold each model. Alert NagNoWorker.",
        "short",
        [now(d.WORKERS, prefix="alive"), now(d.WARM, "model", "hold")],
    ),
    Panel(
        "Refused",
        "Answered 429: the queue of all or of a model is full, or a key has as many jobs as it may.",
        "reqps",
        [total(d.JOBS_REFUSED, "model, limit")],
    ),
    Panel(
        "Warnings",
        "Parameters of accepted jobs that were left out or changed.",
        "reqps",
        [total(d.WARNINGS, "parameter")],
        stacked=True,
    ),
    Panel("Answers", "Of all APIs, by status.", "reqps", [total(d.HTTP, "status")], stacked=True),
    Panel(
        "Answer time",
        "By route; one that waits for its job takes as long as that.",
        "s",
        quantiles(d.HTTP_TIME, "route", (0.95,)),
    ),
    Panel(
        "Redis memory",
        "Full, it takes no more jobs. Alert NagRedisMemoryHigh.",
        "bytes",
        [now(d.REDIS_MEMORY, prefix="used"), now(d.REDIS_MEMORY_MOST, prefix="most")],
    ),
    Panel(
        "Disk and Redis",
        "Free on the disks of data and artifacts, by API; whether each reaches Redis; whether Redis may evict jobs.",
        "percentunit",
        [
            raw(f"{d.DISK_FREE.name} / {d.DISK_SIZE.name}", "instance, folder", "free"),
            raw(d.REDIS_UP.name, "instance", "redis"),
            now(d.REDIS_MAY_EVICT, prefix="may evict"),
        ],
    ),
)

WORKERS = (
    Panel(
        "Images in flight",
        "Images and videos that the engines work on.",
        "short",
        [raw(f"sum by (model) ({d.IN_FLIGHT.name}{{{MODEL}}})", "model")],
        stacked=True,
    ),
    Panel(
        "Joining",
        "Mean of a denoiser call: images that share it, and its rows; CFG has two rows per image.",
        "short",
        [mean(d.CALL_IMAGES, "model", "images"), mean(d.CALL_ROWS, "model", "rows")],
    ),
    Panel("Denoiser calls", "Per second.", "short", [total(d.CALL_IMAGES, "model")], stacked=True),
    Panel(
        "Denoiser call",
        "Its time, by what guides its requests.",
        "s",
        quantiles(d.STEP, "model, guidance", (0.5, 0.95)),
    ),
    Panel(
        "Time to first step",
        "From a job's arrival in the engine to the begin of its first denoiser call.",
        "s",
        quantiles(d.FIRST_STEP, "model", (0.5, 0.95)),
    ),
    Panel(
        "Pre-emptions",
        "Steps of newer requests that went before those in progress, per second.",
        "short",
        [total(d.PREEMPTIONS, "model")],
    ),
    Panel(
        "Images by stage",
        "Mean number of images, files included, in each stage: seconds of the stage per second.",
        "short",
        [raw(f"sum by (stage) (rate({d.STAGE.name}_sum{{{MODEL}}}{WINDOW}))", "stage")],
        stacked=True,
    ),
    Panel("Stage", "Of an image, of a job's files.", "s", quantiles(d.STAGE, "stage", (0.95,))),
    Panel(
        "Pixels",
        "Of all rows of denoiser calls, per second: throughput whatever the size.",
        "short",
        [total(d.PIXELS, "model, guidance")],
        stacked=True,
    ),
    Panel(
        "Prompt cache",
        "Share of the prompts whose embeddings were at hand.",
        "percentunit",
        [
            raw(
                f"{total(d.PROMPTS, 'model', more=HIT).expr} / ({total(d.PROMPTS, 'model').expr} > 0)",
                "model",
            )
        ],
    ),
    Panel("Attempts", "Runs of ended jobs beyond the first, a second.", "short", [total(d.RETRIES, "model")]),
    Panel(
        "Leases lost",
        "Jobs whose worker went silent, a second; and dead letters kept. Alerts NagLeasesLost, NagDeadLetters.",
        "short",
        [
            total(d.LEASES_LOST, "model", "lost"),
            total(d.DEAD_LETTERS, "model", "given up"),
            now(d.DEAD_KEPT, prefix="dead letters"),
        ],
    ),
    Panel(
        "Faults",
        "Faults that the engines survived, since each worker's start: out of memory, raised, no numbers.",
        "short",
        [raw(f"sum by (model, fault) ({d.FAULTS.name}{{{MODEL}}})", "model, fault")],
    ),
    Panel(
        "Loading a model",
        "Mean of those loaded since each worker's start.",
        "s",
        [
            raw(
                f"sum by (model) ({d.LOAD.name}_sum{{{MODEL}}}) / sum by (model) ({d.LOAD.name}_count{{{MODEL}}})",
                "model",
            )
        ],
    ),
    Panel(
        "Models",
        "Loaded, evicted, failed, since each worker's start.",
        "short",
        [raw(f"sum by (model, event) ({d.MODELS.name}{{{MODEL}}})", "model, event")],
    ),
    Panel(
        "LoRAs of requests",
        "On the device already (hit), loaded onto it, evicted from it; since each worker's start.",
        "short",
        [raw(f"sum by (model, event) ({d.LORAS.name}{{{MODEL}}})", "model, event")],
    ),
    Panel(
        "LoRAs on the device",
        "What they take of its memory, by model.",
        "bytes",
        [raw(f"sum by (model) ({d.LORA_BYTES.name}{{{MODEL}}})", "model")],
    ),
    Panel(
        "Reading a LoRA",
        "Mean of the files read since each worker's start.",
        "s",
        [
            raw(
                f"sum by (model) ({d.LORA_READ.name}_sum{{{MODEL}}}) / "
                f"sum by (model) ({d.LORA_READ.name}_count{{{MODEL}}})",
                "model",
            )
        ],
    ),
    Panel(
        "GPU memory",
        "Share in use, by worker.",
        "percentunit",
        [raw(f"{d.GPU_USED.name} / {d.GPU_SIZE.name}", "instance")],
        needs_gpu=True,
    ),
    Panel(
        "GPU utilization",
        "Share of the time a kernel ran; needs the extra `gpu`.",
        "percentunit",
        [raw(d.GPU_BUSY.name, "instance")],
        needs_gpu=True,
    ),
    Panel(
        "Processor and memory",
        "Cores in use, and resident memory, by worker.",
        "short",
        [
            raw(f'rate(process_cpu_seconds_total{{job="nag-worker"}}{WINDOW})', "instance", "cores"),
            raw('process_resident_memory_bytes{job="nag-worker"} / 2^30', "instance", "GiB"),
        ],
    ),
)

GUIDANCE = (
    Panel(
        "Share guided by NAG",
        "Of the completed jobs.",
        "percentunit",
        [raw(f"{total(d.GUIDANCE, 'model', more=APPLIED).expr} / ({total(d.GUIDANCE, 'model').expr} > 0)", "model")],
    ),
    Panel(
        "Applied, or why not",
        "Completed jobs a second.",
        "reqps",
        [total(d.GUIDANCE, "model, applied, reason")],
        stacked=True,
    ),
    Panel(
        "Cost",
        "Time per pixel of denoiser calls that NAG guides, over that of plain ones.",
        "short",
        [raw(f"nag:guidance_cost:ratio5m{{{MODEL}}}", "model")],
    ),
    Panel("Scale", "Of the jobs NAG was applied to.", "short", quantiles(d.SCALE, "model", (0.1, 0.5, 0.9))),
    Panel(
        "Scales",
        "Jobs a second up to each scale.",
        "reqps",
        [raw(f"sum by (le) (max by (model, le) (rate({d.SCALE.name}_bucket{{{MODEL}}}{WINDOW})))", "le", "≤")],
    ),
    Panel("Denoiser call by guidance", "Mean time.", "s", [mean(d.STEP, "model, guidance")]),
    Panel(
        "Time per pixel",
        "Of a denoiser call, over the pixels of all its rows, by what guides its requests.",
        "s",
        [raw(f"nag:pixel_seconds:rate5m{{{MODEL}}}", "model, guidance")],
    ),
    Panel("Denoising a job", "All its steps.", "s", quantiles(d.DENOISE_TIME, "model")),
    Panel(
        "Encoding and decoding a job",
        "Prompts; and from latents to pixels.",
        "s",
        [
            *quantiles(d.ENCODE_TIME, "model", (0.95,), "encode"),
            *quantiles(d.DECODE_TIME, "model", (0.95,), "decode"),
        ],
    ),
)

DASHBOARDS: dict[str, Sequence[Panel]] = {"service": SERVICE, "workers": WORKERS, "guidance": GUIDANCE}
