"""`nag-server up`: supervises the processes of a whole service on one machine. It holds no job itself.

The embedded Valkey (if no NAG_REDIS_URL is given), then the API and a worker for each set of devices, as processes
of their own. Ctrl-C reaches this process alone, which stops them in the order that loses nothing: the workers hand
their jobs back, then the server writes them to disk. A second Ctrl-C is passed on: nothing is waited for any longer.
Killed outright, the API and the workers end with it (on Linux); the server stays, and the next `up` adopts it.
"""

from __future__ import annotations

import asyncio

from app import bind_guard, logs
from app.auth.keyring import Keyring
from app.catalog import Catalog
from app.devices import device_sets
from app.queue.queue import Queue
from app.settings import Settings
from app.supervisor.machine import free_port, sole_user_of
from app.supervisor.supervisor import Supervisor

__all__ = ["up"]


def up(settings: Settings, *, insecure: bool = False) -> int:
    """Run until SIGINT, SIGTERM or SIGHUP; the exit code: 0, or 1 if a part would not stay alive.

    Raises EmbeddedError where another `up` has the data folder or no server can be had, OSError for a port taken,
    CatalogError, KeysError, RequirementError, and InsecureBindError unless `insecure` allows everyone.
    """
    if not insecure:
        bind_guard.check_bind_address(settings)
    logs.configure(settings.log_level)
    catalog = Catalog.load(settings)  # a mistake in it is told here, once, not by each part again and again
    sets = device_sets(settings, catalog.models.values())
    Keyring(settings)
    if settings.redis_url is not None:
        asyncio.run(Queue.check(settings))
    with sole_user_of(settings.data_folder):
        return asyncio.run(Supervisor(settings.model_copy(update={"port": free_port(settings)}), insecure, sets).run())
