"""Requests that start from references and frames: what reaches the pipeline, guidance, and joined denoiser calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.catalog import Catalog, Model
from app.jobs import Guidance, InputFile, InputRole, Job
from app.loading.pipeline import pipeline_class
from app.loading.tasks import task_class
from app.settings import Settings
from app.worker.engine import pipelines as loaded
from app.worker.engine.pipeline_call import CallResult
from app.worker.engine.shared_model import SharedModel
from app.worker.models.warmup import trial_files, trial_jobs
from app.worker.outputs.video import encode_mp4
from nag.families.family import denoisers_of
from tests.hub import pipelines
from tests.pictures import png
from tests.tiers import slow_but
from tests.tiny.common import strengthen
from tests.worker.generate import CPU, generate

Make = Callable[..., Job]
TOLERANCE = 1e-4  # of pixels in [0, 1]; sums in another order differ in the last float32 digits
EFFECT = 20 * TOLERANCE
NAG = Guidance(scale=11.0, tau=5.0, alpha=1.0, end=1.0, negative_prompt="a red shape")
KNOWN = Catalog.known(Settings())
FILES = {color: png(Image.new("RGB", (64, 64), color)) for color in ("red", "blue", "green")}
REFERENCE, FIRST, LAST = InputRole.REFERENCE, InputRole.FIRST_FRAME, InputRole.LAST_FRAME


@dataclass(frozen=True)
class Form:
    """A small pipeline, the entry whose calls it is for, and the roles of its files."""

    make: Callable[[], Any]
    entry: str
    roles: tuple[InputRole, ...]
    side: int = 32


FORMS = {
    "kontext": Form(pipelines.flux_kontext, "flux-kontext-dev", (REFERENCE,)),
    "kontext of a text pipeline": Form(pipelines.flux_schnell, "flux-schnell", (REFERENCE,)),
    "klein": Form(pipelines.flux2_klein, "flux2-klein", (REFERENCE, REFERENCE), 64),
    "flux2": Form(pipelines.flux2_dev, "flux2-dev", (REFERENCE, REFERENCE), 64),
    "wan 2.2": Form(pipelines.wan22_i2v, "wan22-i2v-lightning", (FIRST,)),
    "wan 2.2, both ends": Form(pipelines.wan22_i2v, "wan22-i2v-lightning", (FIRST, LAST)),
    "wan 5B": Form(pipelines.wan_5b, "wan22-ti2v-5b", (FIRST,)),
    "ltx": Form(pipelines.ltx_video, "ltx-video-distilled", (FIRST,), 64),
    "ltx, both ends": Form(pipelines.ltx_video, "ltx-video-distilled", (FIRST, LAST), 64),
    "ltx 2.3, both ends": Form(pipelines.ltx23, "ltx23-distilled", (FIRST, LAST), 64),
}


def shared_model(form: Form) -> SharedModel:
    """The form's model, whose denoisers are moved more by their text and files than freshly made ones."""
    pipe = form.make()
    pipe.set_progress_bar_config(disable=True)
    for denoiser in denoisers_of(pipe):
        strengthen(denoiser)
    entry: Model = KNOWN[form.entry]
    return SharedModel(entry.model_copy(update={"vae_tiling": False}), pipe)


def job_of(form: Form, make_job: Make, job_id: str, *colors: str, **changes: Any) -> Job:
    """A job that starts from files of these colors, in the roles of the form."""
    entry = KNOWN[form.entry]
    files = tuple(InputFile(role, color) for role, color in zip(form.roles, colors, strict=False))
    frames: dict[str, Any] = {}
    if entry.num_frames is not None:
        assert entry.num_frames.multiple is not None
        frames = {"num_frames": 1 + entry.num_frames.multiple, "fps": 8, "output_format": "mp4", "video_codec": "h264"}
    request = {
        "width": form.side, "height": form.side, "num_inference_steps": entry.num_inference_steps.min, "inputs": files,
        **frames,
    }  # fmt: skip
    return make_job(job_id, **{**request, **changes})


def distance(one: CallResult, other: CallResult) -> float:
    return float(np.abs(one.pixels - other.pixels).max())


@pytest.mark.parametrize("name", slow_but(("kontext", "wan 2.2"), FORMS))
def test_files_and_guidance_reach_the_result_alone_and_joined(name: str, make_job: Make) -> None:
    form = FORMS[name]
    model = shared_model(form)
    steps = max(2, KNOWN[form.entry].num_inference_steps.min)
    more: dict[str, Any] = {"num_inference_steps": steps, "seed": 3}
    jobs = [
        job_of(form, make_job, "plain", "red", "blue", **more),
        job_of(form, make_job, "guided", "red", "blue", nag=NAG, **more),
        job_of(form, make_job, "other file", "green", "blue", **more),
        job_of(form, make_job, "other prompt", "blue", "red", **more | {"prompt": "a blue square", "seed": 4}),
    ]
    joined = generate(model, *jobs, files=FILES)
    plain, guided, other_file, _ = joined
    assert [image.applied.applied for image in joined] == [False, True, False, False]
    assert all(np.isfinite(image.pixels).all() for image in joined)
    assert distance(plain, guided) > EFFECT
    assert distance(plain, other_file) > EFFECT
    assert {image.batch_size for image in joined} == {len(jobs)}
    for job, image in zip(jobs[1:], joined[1:], strict=True):
        assert distance(image, generate(model, job, files=FILES)[0]) < TOLERANCE, job.id
    model.close()


@pytest.mark.slow
def test_a_last_frame_matters(make_job: Make) -> None:
    for name in ("wan 2.2, both ends", "ltx, both ends", "ltx 2.3, both ends"):
        model, form = shared_model(FORMS[name]), FORMS[name]
        jobs = [job_of(form, make_job, job_id, "red", job_id.split()[0]) for job_id in ("blue", "blue again", "green")]
        blue, again, green = generate(model, *jobs, files=FILES)
        assert distance(blue, green) > 50 * distance(blue, again), name
        assert distance(blue, green) > TOLERANCE, name


def test_text_to_video_and_image_to_video_share_calls_where_the_denoiser_is_told_the_same(make_job: Make) -> None:
    form = FORMS["wan 5B"]
    model = shared_model(form)
    jobs = [job_of(form, make_job, "text"), job_of(form, make_job, "image", "red")]
    joined = generate(model, *jobs, files=FILES)
    for job, video in zip(jobs, joined, strict=True):
        assert distance(video, generate(model, job, files=FILES)[0]) < TOLERANCE
    assert [video.batch_size for video in joined] == [2, 2]


def test_requests_with_other_numbers_of_references_take_turns(make_job: Make) -> None:
    model, form = shared_model(FORMS["klein"]), FORMS["klein"]
    colors = [(), ("red",), ("red", "blue")]
    jobs = [job_of(form, make_job, f"{len(files)} references", *files) for files in colors]
    joined = generate(model, *jobs, files=FILES)
    assert [image.batch_size for image in joined] == [1, 1, 1]
    assert min(distance(joined[0], joined[1]), distance(joined[1], joined[2])) > EFFECT
    for job, image in zip(jobs, joined, strict=True):
        assert distance(image, generate(model, job, files=FILES)[0]) < TOLERANCE


@pytest.mark.parametrize("name", [name for name, entry in KNOWN.items() if entry.inputs.tasks])
def test_diffusers_can_what_an_entry_offers(name: str) -> None:
    entry = KNOWN[name]
    kind = loaded_class(entry)
    assert all(task_class(kind, task) is not None for task in entry.inputs.tasks)


def loaded_class(entry: Model) -> Any:
    kind = pipeline_class(entry)
    return kind if entry.pipeline is not None else type(loaded.load(entry, CPU))


def test_a_trial_has_the_files_that_its_model_needs(make_job: Make) -> None:
    form = FORMS["wan 2.2"]
    model = shared_model(form)
    size = {"width": form.side, "height": form.side, "num_frames": 5}
    entry = model.entry.model_copy(
        update={name: getattr(model.entry, name).model_copy(update={"default": value}) for name, value in size.items()}
    )
    (job,) = trial_jobs(entry, 1)
    assert [file.role for file in job.request.inputs] == [InputRole.FIRST_FRAME]
    assert generate(model, job, files=trial_files(entry))[0].pixels.shape == (5, 32, 32, 3)
    assert trial_files(KNOWN["wan22-ti2v-5b"]) == {}


@pytest.mark.slow
def test_a_video_is_changed_as_far_as_strength_goes(make_job: Make) -> None:
    """Its first frames start the denoising: the less of it there is, the more is left of them."""
    form = Form(pipelines.wan, "wan21-lightx2v", (InputRole.VIDEO,))
    model = shared_model(form)
    size = {"width": 32, "height": 32, "num_frames": 5}
    files = {color: film(color) for color in ("red", "blue")}
    strengths = (0.05, 0.5, 1.0)
    jobs = [
        job_of(form, make_job, f"{color} {strength}", color, seed=2, num_inference_steps=20, strength=strength, **size)
        for strength in strengths
        for color in files
    ]
    joined = generate(model, *jobs, files=files)
    little, half, all_of_it = (
        float(np.abs(red.pixels - blue.pixels).mean()) for red, blue in zip(joined[::2], joined[1::2], strict=True)
    )
    assert little > 2 * half > 4 * all_of_it
    assert [job.request.steps for job in jobs[::2]] == [1, 10, 20]
    for job, video in zip(jobs, joined, strict=True):
        assert distance(video, generate(model, job, files=files)[0]) < TOLERANCE
    longer = job_of(form, make_job, "longer", "red", strength=0.5, **size | {"num_frames": 9})
    with pytest.raises(ValueError, match="the video has 5 frames, not 9"):
        generate(model, longer, files=files)


def film(color: str) -> bytes:
    frame = np.asarray(Image.new("RGB", (32, 32), color))
    with encode_mp4(np.stack([frame] * 5), 8) as file:
        return file.read()
