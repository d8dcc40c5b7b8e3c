"""What clients call things: their generators make modules, functions and classes of these names."""

from __future__ import annotations

__all__ = ["OPERATIONS", "SCHEMAS", "TAGS"]

TAGS = {
    "jobs": "Images and videos of any model: create, follow and fetch jobs.",
    "images": "OpenAI's routes for images.",
    "videos": "OpenAI's routes for videos.",
    "files": "Images and videos to start from, uploaded once.",
    "artifacts": "Files, by their signed links.",
    "models": "What can be asked for, and within which limits.",
    "loras": "Styles that requests add to a model.",
    "sdapi": "The API of AUTOMATIC1111's web UI, for its clients.",
    "queue": "How long a job would wait.",
    "health": "For load balancers and Prometheus.",
}

#: Of a route's function, if that is not its operationId already.
OPERATIONS = {
    "get_events": "stream_job_events",
    "get_file_content": "download_file",
    "get_result": "get_job_result",
    "healthz": "get_health",
    "readyz": "get_readiness",
    "metrics": "get_metrics",
    "worker_targets": "list_worker_targets",
}

SCHEMAS = {
    "AppliedGuidance": "NAGApplied",
    "CompletedEvent": "ImageCompletedEvent",
    "DeletedView": "JobDeleted",
    "ErrorBody": "Error",
    "FileDeletedView": "FileDeleted",
    "FileView": "File",
    "FilesView": "FileList",
    "Img2ImgBody": "Img2ImgRequest",
    "ImageBody": "ImageRequest",
    "ImagesView": "ImagesResponse",
    "JobBody": "JobRequest",
    "JobEventView": "JobEvent",
    "JobView": "Job",
    "JobsView": "JobList",
    "LoraDeletedView": "LoraDeleted",
    "LoraUseBody": "LoraUseRequest",
    "LoraView": "Lora",
    "LorasView": "LoraList",
    "ModelQueueView": "ModelQueue",
    "ModelView": "Model",
    "ModelsView": "ModelList",
    "NAGBody": "NAGRequest",
    "OptionsBody": "SdapiOptionsRequest",
    "PngInfoBody": "PngInfoRequest",
    "QueueView": "QueueList",
    "PartialImageEvent": "ImagePartialEvent",
    "Range_float_": "NumberRange",
    "Range_int_": "IntegerRange",
    "SdapiChangedView": "SdapiOptionsLeftOut",
    "SdapiImagesView": "SdapiImages",
    "SdapiLoraView": "SdapiLora",
    "SdapiModelView": "SdapiModel",
    "SdapiOptionsView": "SdapiOptions",
    "SdapiPngInfoView": "PngInfo",
    "SdapiProgressView": "SdapiProgress",
    "SdapiSamplerView": "SdapiSampler",
    "SdapiSchedulerView": "SdapiScheduler",
    "SdapiStateView": "SdapiState",
    "SdapiUpscalerView": "SdapiUpscaler",
    "Txt2ImgBody": "Txt2ImgRequest",
    "VideoBody": "VideoRequest",
    "VideoDeletedView": "VideoDeleted",
    "VideoView": "Video",
    "VideosView": "VideoList",
}
