"""Settings of workers: their devices, memory, caches, batches and metrics."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationInfo, field_validator

from app.settings.types import OptionalCommaList, Port, SettingsGroup

__all__ = ["WorkerSettings"]


class WorkerSettings(SettingsGroup):
    device: str = "auto"
    """Torch device of a worker. `auto` takes CUDA if there is any."""

    devices: OptionalCommaList[NonNegativeInt] = None
    """Comma-separated numbers of this machine's devices to use. A worker takes as many of them as its models'
    `parallel` asks for. Default: the first devices.
    """

    nodes: PositiveInt = 1
    """Number of machines that share the devices of one worker."""

    node: NonNegativeInt = 0
    """Number of this machine among them. Machine 0 takes the jobs."""

    rendezvous: Annotated[str | None, Field(validate_default=True, pattern="^(tcp|file)://")] = None
    """Address at which these machines meet, such as `tcp://host:port` of machine 0."""

    rank_timeout_s: PositiveFloat = 120.0
    """A worker over several devices ends if one of them keeps the others waiting for longer."""

    warm: OptionalCommaList[str] = None
    """Comma-separated ids of the models that a worker loads at its start, or `none`. Default: the default model and all
    models that are on its disk and fit.
    """

    model_memory_bytes: PositiveInt | None = None
    """Memory that the loaded models of a worker may take together. Default: a share of the device's memory."""

    model_host_bytes: NonNegativeInt = 0
    """Main memory for models that were evicted from a GPU, which then load faster. 0 keeps none."""

    tf32: bool = False
    """Whether a GPU multiplies float32 matrices in TF32, for all models of the worker."""

    prompt_cache_bytes: NonNegativeInt = 256 * 2**20
    """Main memory for encoded prompts. 0 keeps none."""

    lora_memory_bytes: PositiveInt | None = None
    """Memory of a worker's device for the LoRAs of requests. Default: 5 % of it."""

    lora_host_bytes: NonNegativeInt = 2**30
    """Main memory of a worker for the LoRAs of requests. With 0 each file is read again."""

    batch_size: Annotated[int, Field(ge=1, le=256)] = 32
    """Largest number of images of a model's default size in one denoiser call."""

    batch_budget: Literal["measured", "fixed"] = "measured"
    """`measured`: a denoiser call takes as many images as raise the throughput, NAG_BATCH_SIZE at most. The number is
    learned while the model serves. `fixed`: it takes up to NAG_BATCH_SIZE.
    """

    overlap: Literal["auto", "on", "off"] = "auto"
    """Whether autoencoders run while the denoiser does. `auto`: on CUDA, and for videos on every device."""

    stuck_s: PositiveFloat = 900.0
    """A worker ends if one model call or one load takes longer. Its jobs are queued again."""

    metrics_host: str = "127.0.0.1"
    """Address at which a worker serves its metrics."""

    metrics_port: Port = 0
    """Port of a worker's metrics. 0 takes a free one, which GET /metrics/workers names."""

    @field_validator("rendezvous")
    @classmethod
    def _is_one_of_nodes(cls, value: str | None, info: ValidationInfo) -> str | None:
        nodes, node = info.data.get("nodes", 1), info.data.get("node", 0)
        if node >= nodes:
            raise ValueError(f"NAG_NODE must be below NAG_NODES={nodes}, got {node}")
        if nodes > 1 and (value is None or not value.startswith("tcp://")):
            raise ValueError(f"must be tcp://host:port if NAG_NODES is more than 1, got {value}")
        return value
