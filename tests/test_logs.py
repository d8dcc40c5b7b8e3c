from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.limits import HANG_S

ROOT = Path(__file__).parents[2]


def lines(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"from app import logs; log = logs.Log('part'); {code}"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=HANG_S,
    )  # fmt: skip
    return done.stderr.splitlines()


def test_an_event_is_one_line_of_words_and_values() -> None:
    (line,) = lines(
        "logs.configure('info'); log.info('done', job='j', took_ms=1.25, message='two\\nlines = \"x\"', n='')"
    )
    clock, level, component, *rest = line.split(None, 3)
    assert clock.endswith("Z")
    assert (level, component) == ("info", "nag.part")
    assert rest == ['done job=j took_ms=1.25 message="two\\nlines = \\"x\\"" n=""']


def test_the_level_holds_and_an_exception_stays_on_its_line() -> None:
    code = "import logging; logs.configure('warning'); log.info('no'); logging.error('x', exc_info=ValueError('said'))"
    (line,) = lines(code)
    assert "error   root x exception=" in line
    assert "said" in line


def test_the_api_s_parts_load_no_torch() -> None:
    code = "import app.queue.queue, app.artifacts, app.jobs, sys; print('torch' in sys.modules, file=sys.stderr)"
    assert lines(code) == ["False"]


def test_no_line_shows_an_api_key() -> None:
    code = "logs.configure('info'); log.info('x', header='Bearer nag_' + 'a' * 43, metric='nag_jobs_total')"
    (line,) = lines(code)
    assert "Bearer nag_…" in line
    assert "metric=nag_jobs_total" in line
    assert "a" * 43 not in line
