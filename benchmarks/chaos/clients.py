"""Clients as they should be: a key with every request, another replica after a broken connection, patience."""

from __future__ import annotations

import asyncio
import base64
import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

__all__ = ["Clients", "RequestOutcome", "Wish", "wishes"]

TIMEOUT_S = 60.0  # above the longest time a request is held here
HELD_S = 5
POLL_S = 0.1
BACK_OFF_S = (0.1, 0.5)
WAIT_MAX_S = 2.0  # most that a retry-after is obeyed
PROMPTS = ("a shape", "a small red circle", "a large blue square on a white background", "a green triangle")
ENDS = ("completed", "failed", "cancelled", "expired")


@dataclass(frozen=True)
class Wish:
    """One request, and what its client does with it."""

    key: str
    body: dict[str, Any]
    how: str  # "held" by Prefer: wait, "polled", or "openai": POST /v1/images/generations
    cancel_after_s: float | None = None


@dataclass
class RequestOutcome:
    """What became of a wish, as its client saw it."""

    wish: Wish
    ids: set[str] = field(default_factory=set)  # of every answer that accepted it: there should be one
    status: str = ""
    code: str = ""
    attempts: int = 0
    total_s: float = 0.0
    wrong: list[str] = field(default_factory=list)


def wishes(count: int, draw: random.Random, models: Sequence[str], hows: Sequence[str], unwanted: float) -> list[Wish]:
    """Images of 1 or 2 steps, with NAG, CFG or neither; of each share `unwanted`, some are cancelled and some given
    a deadline that they may miss.
    """
    made = []
    for number in range(count):
        body: dict[str, Any] = {
            "model": draw.choice(models), "prompt": draw.choice(PROMPTS), "seed": draw.randrange(2**32),
            "n": draw.choice((1, 1, 1, 2)), "output_format": "png",
        }  # fmt: skip
        how = draw.choice(hows)
        if how != "openai":
            body["num_inference_steps"] = draw.choice((1, 2))
        if draw.random() < 0.5:
            body["negative_prompt"] = draw.choice(("a red shape", "a circle", "a white background"))
        if draw.random() < 0.2:
            body["guidance_scale"] = draw.choice((1.5, 2.0, 3.0))
        chance, cancel_after_s = draw.random(), None
        if chance < unwanted and how != "openai":
            how, cancel_after_s = "polled", draw.random()
        elif chance < 2 * unwanted and how != "openai":
            body["deadline_s"] = round(0.2 + 2 * draw.random(), 2)
        made.append(Wish(f"{number}-{draw.getrandbits(64):016x}", body, how, cancel_after_s))
    return made


class Clients:
    """Any number of clients of one service. `answers` counts statuses, error codes and broken connections."""

    def __init__(self, urls: Sequence[str], draw: random.Random, timeout_s: float = TIMEOUT_S) -> None:
        self.answers: Counter[str] = Counter()
        self.outcomes: list[RequestOutcome] = []
        self.ended = 0
        self._urls = urls
        self._draw = draw
        self._http = httpx.AsyncClient(timeout=timeout_s, trust_env=False, limits=httpx.Limits(max_connections=None))

    async def close(self) -> None:
        await self._http.aclose()

    async def fulfil(self, wish: Wish) -> None:
        """Does everything from the request to the bytes of the result."""
        outcome = RequestOutcome(wish)
        self.outcomes.append(outcome)
        begun_s = asyncio.get_running_loop().time()
        await (self._openai(outcome) if wish.how == "openai" else self._job(outcome))
        outcome.total_s = asyncio.get_running_loop().time() - begun_s
        self.ended += 1

    async def look(self, job_id: str) -> dict[str, Any] | None:
        """Returns a job as any replica shows it; None where it is unknown."""
        answer = await self._send("GET", f"/v1/jobs/{job_id}")
        return None if answer.status_code == 404 else dict(answer.json())

    async def _job(self, outcome: RequestOutcome) -> None:
        wish = outcome.wish
        headers = {"idempotency-key": wish.key} | ({"prefer": f"wait={HELD_S}"} if wish.how == "held" else {})
        answer = await self._send("POST", "/v1/jobs", json=wish.body, headers=headers)
        if answer.status_code not in (200, 202):
            outcome.wrong.append(f"refused with {answer.status_code}: {answer.text}")
            return
        job: dict[str, Any] | None = answer.json()
        outcome.ids.add(answer.json()["id"])
        if wish.cancel_after_s is not None:
            await asyncio.sleep(wish.cancel_after_s)
            job = (await self._send("POST", f"/v1/jobs/{answer.json()['id']}/cancel")).json()
        while job is not None and job.get("status") not in ENDS:
            await asyncio.sleep(POLL_S)
            job = await self.look(answer.json()["id"])
        if job is None:
            outcome.status = "lost"
            return
        outcome.status, outcome.attempts = job["status"], job["attempts"]
        outcome.code = (job["error"] or {}).get("code", "")
        for output in job["outputs"]:
            data = (await self._send("GET", output["url"])).content
            outcome.wrong += _wrong(data, job["request"]["width"], job["request"]["height"])
            if len(data) != output["size_bytes"]:
                outcome.wrong.append(f"{len(data)} bytes where {output['size_bytes']} were told")
        if outcome.status == "completed" and len(job["outputs"]) != wish.body["n"]:
            outcome.wrong.append(f"{len(job['outputs'])} images, not {wish.body['n']}")

    async def _openai(self, outcome: RequestOutcome) -> None:
        headers = {"idempotency-key": outcome.wish.key}
        answer = await self._send("POST", "/v1/images/generations", json=outcome.wish.body, headers=headers)
        if answer.status_code != 200:
            outcome.wrong.append(f"refused with {answer.status_code}: {answer.text}")
            return
        said = answer.json()
        outcome.ids.add(said["job"])
        outcome.status, outcome.attempts = "completed", said["attempts"]
        width, height = map(int, said["size"].split("x"))
        for image in said["data"]:
            outcome.wrong += _wrong(base64.b64decode(image["b64_json"]), width, height)

    async def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Returns the first answer that is neither a 429 nor a 5xx, from whichever replica gives one."""
        turn = self._draw.randrange(len(self._urls))
        while True:
            try:
                answer = await self._http.request(method, self._urls[turn % len(self._urls)] + path, **request)
            except httpx.TransportError as error:
                self.answers["refused" if isinstance(error, httpx.ConnectError) else "broken"] += 1
                pause_s = self._draw.uniform(*BACK_OFF_S)
            else:
                if answer.status_code < 500 and answer.status_code != 429:
                    self.answers[str(answer.status_code)] += 1
                    return answer
                self.answers[f"{answer.status_code} {_code(answer)}"] += 1
                pause_s = min(WAIT_MAX_S, float(answer.headers.get("retry-after", BACK_OFF_S[1])))
            turn += 1
            await asyncio.sleep(pause_s)


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return "not in the error body"


def _wrong(data: bytes, width: int, height: int) -> list[str]:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            found = (image.format, *image.size)
    except OSError as error:
        return [f"not an image: {error}"]
    return [] if found == ("PNG", width, height) else [f"{found}, not a PNG of {width}x{height}"]
