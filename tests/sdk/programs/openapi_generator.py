"""Run with the client that openapi-generator made on the path. The argument is the server's URL."""

import json
import sys
import time

from nag_client import ApiClient, Configuration, Error, JobRequest, JobsApi, NAGRequest, VideoRequest, VideosApi
from nag_client.exceptions import BadRequestException

with ApiClient(Configuration(host=sys.argv[1])) as client:
    jobs = JobsApi(client)
    body = JobRequest(model="shapes-flux", prompt="a shape", seed=7, nag=NAGRequest(negative_prompt="red", scale=7.0))
    job = jobs.create_job(body)
    while job.status in ("queued", "in_progress"):
        time.sleep(0.1)
        job = jobs.get_job(job.id)
    picture = jobs.get_job_result(job.id)
    part = jobs.get_job_result_with_http_info(job.id, range="bytes=0-3")
    try:
        jobs.create_job(JobRequest(prompt="a", model="unknown"))
    except BadRequestException as exc:
        refused = exc
    assert isinstance(refused.data, Error)
    video = VideosApi(client).create_video(VideoRequest(prompt="a shape", seconds="1"))
    print(
        json.dumps(
            {
                "status": job.status,
                "scale": job.nag.scale,
                "picture": bytes(picture).hex(),
                "part": [part.status_code, bytes(part.raw_data).hex()],
                "refused": [refused.status, refused.data.error.code, refused.data.error.param],
                "video": [video.status, video.seconds],
            }
        )
    )
