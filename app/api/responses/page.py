"""OpenAI's lists that are fetched page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel

from app.jobs import Job
from app.queue.queue import JobPage

__all__ = ["PageView"]

ViewT = TypeVar("ViewT", bound=BaseModel)


class PageView(BaseModel, Generic[ViewT]):
    """The next page is the one `after` last_id."""

    object: Literal["list"] = "list"
    data: list[ViewT]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, page: JobPage, view: Callable[[Job], ViewT]) -> Self:
        """`view` keeps a job's id."""
        ids = [job.id for job in page.jobs]
        return cls(
            data=[view(job) for job in page.jobs],
            first_id=ids[0] if ids else None,
            last_id=ids[-1] if ids else None,
            has_more=page.has_more,
        )
