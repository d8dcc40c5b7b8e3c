"""Declares every metric of the service once, for the processes, the scripts in Redis and the dashboards.

Labels are models of the catalog, routes and short fixed words; never an id, a prompt, a path or a key.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["ALL", "Kind", "Metric", "Source"]


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Which processes export a metric, and how a query combines them."""

    SERVICE = "service"  # every API process exports the same value, from Redis: take the max
    API = "api"  # each API process exports its own: take the sum
    WORKER = "worker"  # each worker exports its own: take the sum


@dataclass(frozen=True)
class Metric:
    """One metric. `name` is Prometheus' one, for a histogram without `_bucket`. Buckets are in the name's unit."""

    name: str
    help: str
    kind: Kind
    source: Source
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


#: From a 64-pixel image on a CPU to a video on one GPU.
LATENCY_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 300.0, 600.0, 1200.0)
#: Also for shorter times: encoding a 64-pixel image to a file, storing it in a folder, an answer from memory.
BRIEF_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, *LATENCY_S)
STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SCALES = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 11.0, 15.0, 20.0)
IMAGES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)

_C, _G, _H = Kind
_SERVICE, _API, _WORKER = Source

# Counted in Redis, by the script that makes the transition.
JOBS_ACCEPTED = Metric("nag_jobs_accepted_total", "Jobs queued.", _C, _SERVICE, ("model", "priority"))
JOBS_REFUSED = Metric("nag_jobs_refused_total", "Jobs that a limit refused.", _C, _SERVICE, ("model", "limit"))
JOBS = Metric("nag_jobs_total", "Jobs that have ended.", _C, _SERVICE, ("model", "outcome"))
ERRORS = Metric("nag_job_errors_total", "Jobs that ended with an error.", _C, _SERVICE, ("model", "error_code"))
RETRIES = Metric("nag_job_retries_total", "Attempts of ended jobs beyond the first.", _C, _SERVICE, ("model",))
LEASES_LOST = Metric("nag_leases_lost_total", "Jobs whose lease expired.", _C, _SERVICE, ("model",))
DEAD_LETTERS = Metric(
    "nag_dead_letters_total", "Jobs that failed as worker_lost after the last attempt.", _C, _SERVICE, ("model",)
)
GUIDANCE = Metric(
    "nag_guidance_total",
    "Completed jobs, by whether NAG was applied and why not.",
    _C,
    _SERVICE,
    ("model", "applied", "reason"),
)
SCALE = Metric("nag_guidance_scale", "NAG scale of completed jobs it was applied to.", _H, _SERVICE, ("model",), SCALES)
E2E = Metric(
    "nag_e2e_request_latency_seconds", "From acceptance to the stored result.", _H, _SERVICE, ("model",), LATENCY_S
)
QUEUE_TIME = Metric(
    "nag_request_queue_time_seconds", "Waiting for a worker, of completed jobs.", _H, _SERVICE, ("model",), LATENCY_S
)
ENCODE_TIME = Metric(
    "nag_request_encode_time_seconds", "Encoding a job's prompts.", _H, _SERVICE, ("model",), LATENCY_S
)
DENOISE_TIME = Metric(
    "nag_request_denoise_time_seconds", "All denoising steps of a job.", _H, _SERVICE, ("model",), LATENCY_S
)
DECODE_TIME = Metric(
    "nag_request_decode_time_seconds", "From a job's latents to its pixels.", _H, _SERVICE, ("model",), LATENCY_S
)

# Read from Redis when an API is asked.
DEPTH = Metric("nag_queue_depth", "Jobs waiting for a worker.", _G, _SERVICE, ("model", "priority"))
OLDEST = Metric("nag_queue_oldest_seconds", "Age of the oldest waiting job.", _G, _SERVICE, ("model", "priority"))
LIMIT = Metric("nag_queue_limit", "Maximum number of waiting jobs, all models together.", _G, _SERVICE)
RUNNING = Metric("nag_jobs_running", "Jobs that a worker holds.", _G, _SERVICE, ("model",))
WORKERS = Metric("nag_workers_alive", "Live workers.", _G, _SERVICE)
WARM = Metric("nag_warm_workers", "Workers holding the model.", _G, _SERVICE, ("model",))
DEAD_KEPT = Metric("nag_dead_letters", "Dead letters that were neither replayed nor dropped.", _G, _SERVICE)
REDIS_UP = Metric("nag_redis_up", "1 while this API reaches the queue.", _G, _API)
REDIS_MEMORY = Metric("nag_redis_memory_bytes", "Memory that Redis uses.", _G, _SERVICE)
REDIS_MEMORY_MOST = Metric(
    "nag_redis_memory_max_bytes", "Redis' maxmemory, or the machine's memory if that is not set.", _G, _SERVICE
)
REDIS_MAY_EVICT = Metric(
    "nag_redis_may_evict", "1 while Redis' maxmemory-policy lets it drop jobs when it is full.", _G, _SERVICE
)

# An API's own.
HTTP = Metric("nag_http_requests_total", "Responses sent.", _C, _API, ("route", "method", "status"))
HTTP_TIME = Metric(
    "nag_http_request_duration_seconds", "From a request's head to its response's end.", _H, _API, ("route",), BRIEF_S
)
WARNINGS = Metric(
    "nag_request_warnings_total", "Parameters that were ignored or changed, with a warning.", _C, _API, ("parameter",)
)
DISK_FREE = Metric("nag_disk_free_bytes", "Free on a folder's disk: data or artifacts.", _G, _API, ("folder",))
DISK_SIZE = Metric("nag_disk_size_bytes", "Size of a folder's disk.", _G, _API, ("folder",))

# A worker's own.
IN_FLIGHT = Metric("nag_images_in_flight", "Images and videos that the engine works on.", _G, _WORKER, ("model",))
FIRST_STEP = Metric(
    "nag_time_to_first_step_seconds",
    "From a job's arrival in the engine to the start of its first denoiser call, of generated jobs.",
    _H, _WORKER, ("model",), BRIEF_S,
)  # fmt: skip
STAGE = Metric(
    "nag_stage_seconds",
    "One stage: encode, denoise and decode of an image, file of a job, store of a file.",
    _H, _WORKER, ("model", "stage"), BRIEF_S,
)  # fmt: skip
STEP = Metric(
    "nag_step_seconds",
    "A denoiser call, by the guidance of its requests.",
    _H,
    _WORKER,
    ("model", "guidance"),
    STEP_S,
)
CALL_IMAGES = Metric(
    "nag_denoiser_call_images", "Images and videos joined in a denoiser call.", _H, _WORKER, ("model",), IMAGES
)
CALL_ROWS = Metric(
    "nag_denoiser_call_rows", "Rows of a denoiser call; CFG has two per image.", _H, _WORKER, ("model",), IMAGES
)
PIXELS = Metric(
    "nag_denoised_pixels_total", "Pixels of all rows of denoiser calls.", _C, _WORKER, ("model", "guidance")
)
PREEMPTIONS = Metric(
    "nag_preemptions_total", "Steps of newer requests that went before those in progress.", _C, _WORKER, ("model",)
)
FAULTS = Metric("nag_engine_faults_total", "Faults that the engine survived.", _C, _WORKER, ("model", "fault"))
PROMPTS = Metric("nag_prompt_cache_total", "Prompts looked up, hit or miss.", _C, _WORKER, ("model", "outcome"))
LOAD = Metric("nag_model_load_seconds", "Loading a model onto the device.", _H, _WORKER, ("model",), LATENCY_S)
MODELS = Metric("nag_model_events_total", "Models loaded, evicted or failed.", _C, _WORKER, ("model", "event"))
LORAS = Metric(
    "nag_lora_events_total",
    "LoRAs of requests: hit (on the device already), loaded onto it, or evicted from it.",
    _C, _WORKER, ("model", "event"),
)  # fmt: skip
LORA_BYTES = Metric("nag_lora_resident_bytes", "LoRAs on the device.", _G, _WORKER, ("model",))
LORA_READ = Metric("nag_lora_read_seconds", "Reading a LoRA's file.", _H, _WORKER, ("model",), BRIEF_S)
GPU_USED = Metric("nag_gpu_memory_used_bytes", "Device memory in use, by all processes.", _G, _WORKER, ("device",))
GPU_SIZE = Metric("nag_gpu_memory_size_bytes", "Device memory.", _G, _WORKER, ("device",))
GPU_BUSY = Metric("nag_gpu_utilization_ratio", "Share of the last second a kernel ran.", _G, _WORKER, ("device",))

ALL: tuple[Metric, ...] = tuple(metric for metric in list(globals().values()) if isinstance(metric, Metric))
