"""Run with the client that openapi-python-client made on the path. The argument is the server's URL."""

import json
import sys
import time

from nag_client import Client
from nag_client.api.jobs import create_job, get_job, get_job_result
from nag_client.api.videos import create_video
from nag_client.models import Error, Job, JobRequest, NAGRequest, Video, VideoRequest

client = Client(base_url=sys.argv[1])
body = JobRequest(model="shapes-flux", prompt="a shape", seed=7, nag=NAGRequest(negative_prompt="red", scale=7.0))
job = create_job.sync(client=client, body=body)
while isinstance(job, Job) and job.status in ("queued", "in_progress"):
    time.sleep(0.1)
    job = get_job.sync(job.id, client=client)
assert isinstance(job, Job), job
assert job.nag is not None
picture = get_job_result.sync(job.id, client=client)
part = get_job_result.sync_detailed(job.id, client=client, range_="bytes=0-3")
refused = create_job.sync_detailed(client=client, body=JobRequest(prompt="a", model="unknown"))
assert isinstance(refused.parsed, Error)
video = create_video.sync(client=client, body=VideoRequest(prompt="a shape", seconds="1"))
assert isinstance(video, Video), video
print(
    json.dumps(
        {
            "status": job.status,
            "scale": job.nag.scale,
            "picture": picture.payload.read().hex(),
            "part": [part.status_code, part.content.hex()],
            "refused": [refused.status_code, refused.parsed.error.code, refused.parsed.error.param],
            "video": [video.status, video.seconds],
        }
    )
)
