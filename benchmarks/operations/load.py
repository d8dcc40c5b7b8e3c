"""Requests of every kind that a dashboard tells apart."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import Any

import httpx

__all__ = ["BAD", "CATALOG", "Load"]

BAD = "shapes-bad"
#: A model that loads, and whose denoiser then raises: it has no IP-Adapter.
CATALOG = f"""
[models.{BAD}]
extends = "shapes-flux"
call = {{ joint_attention_kwargs = {{ ip_adapter_image_embeds = 1 }} }}
"""
WAIT = {"prefer": "wait=30"}
#: The model has no styles, which is said in a warning.
WARNED = {"prompt": "a shape", "style": "vivid", "strict": False}


class Load:
    """A few clients that each wait for their answer before they ask again, on all APIs in turn."""

    def __init__(self, apis: Sequence[str], seed: int) -> None:
        self._apis = apis
        self._draw = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.http = httpx.AsyncClient(trust_env=False, timeout=60)
        self.clients = 4
        self.answers = 0

    def url(self) -> str:
        return self._draw.choice(self._apis)

    async def keep(self) -> None:
        """Keeps the load until it is cancelled; a service that is away is asked again."""
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                group.create_task(self._client(number))

    async def _client(self, number: int) -> None:
        while True:
            if number < self.clients:
                with contextlib.suppress(httpx.HTTPError):
                    await self._one()
            await asyncio.sleep(0.3)

    async def _one(self) -> None:
        draw, url = self._draw, self.url()
        kind = draw.random()
        if kind < 0.05:
            await self.http.get(f"{url}/v1/jobs/nobody")
        elif kind < 0.1:
            await self.http.post(f"{url}/v1/jobs", json={"prompt": "a shape", "scale": 5})
        elif kind < 0.15:
            job = (await self.http.post(f"{url}/v1/jobs", json={"prompt": "a shape"})).json()
            await self.http.post(f"{url}/v1/jobs/{job.get('id')}/cancel")
        elif kind < 0.25:
            await self.http.post(f"{url}/v1/images/generations", json=WARNED)
        else:
            await self.http.post(f"{url}/v1/jobs", json=self._body(), headers=WAIT)
        self.answers += 1

    def _body(self) -> dict[str, Any]:
        draw = self._draw
        color, shape = draw.choice(("red", "green", "blue")), draw.choice(("circle", "square", "triangle"))
        body: dict[str, Any] = {"prompt": f"a {color} {shape}", "priority": draw.choice(("high", "normal", "low"))}
        match draw.randrange(7):
            case 0:
                body["loras"] = [{"id": draw.choice(("dotted", "underlined"))}]
            case 1:
                body |= {"negative_prompt": "a red shape", "guidance_scale": 2.0}
            case 2:
                body["nag"] = {"scale": 1.0, "negative_prompt": "a red shape"}
            case 3:
                pass
            case _:
                scale = draw.choice((2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 11.0))
                body["nag"] = {"scale": scale, "negative_prompt": f"a {color} shape"}
        return body | {"n": draw.choice((1, 1, 2))}
