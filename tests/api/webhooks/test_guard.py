"""Where the connection goes."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from app.api.webhooks import guard, sender
from app.api.webhooks.guard import allowed
from app.api.webhooks.sender import Outcome, Sender
from app.settings import Settings
from tests.api.webhooks.receiver import Receiver, answer, receiving, with_webhooks

PUBLIC, LOOPBACK = "93.184.216.34", "127.0.0.1"


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """What names resolve to, look-up by look-up."""
    names: dict[str, list[list[str]]] = {}

    def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
        if host not in names:
            return socket.getaddrinfo(host, port, **options)
        found = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]

    monkeypatch.setattr(guard, "getaddrinfo", getaddrinfo)
    return names


async def send(settings: Settings, url: str, **changes: Any) -> Outcome:
    sending = Sender(with_webhooks(settings, **changes))
    outcome, _ = await sending.send(url, "msg_1", "{}")
    await sending.close()
    return outcome


def named(receiver: Receiver) -> str:
    return f"http://rebind.example:{receiver.port}/"


async def test_a_name_that_resolves_to_this_machine_is_refused(
    settings: Settings, resolving: dict[str, list[list[str]]]
) -> None:
    async with receiving() as receiver:
        for addresses in ([LOOPBACK], [PUBLIC, LOOPBACK], ["169.254.169.254"]):
            resolving["rebind.example"] = [addresses]
            assert await send(settings, named(receiver), webhook_allow=()) is Outcome.REFUSED
        assert receiver.told == []
        assert await send(settings, f"http://localhost:{receiver.port}/", webhook_allow=()) is Outcome.REFUSED
        resolving["rebind.example"] = [[LOOPBACK]]
        assert await send(settings, named(receiver)) is Outcome.DELIVERED
        assert receiver.told[0][1]["host"] == f"rebind.example:{receiver.port}"


async def test_a_name_that_changes_its_mind_is_asked_once(
    settings: Settings, resolving: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TIMEOUT_S", 0.5)  # nobody answers at the public address here
    async with receiving() as receiver:
        resolving["rebind.example"] = [[PUBLIC], [LOOPBACK]]
        assert await send(settings, named(receiver), webhook_allow=()) is Outcome.UNREACHABLE
        assert receiver.told == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_leads_nowhere(settings: Settings, status: int) -> None:
    async with receiving() as private, receiving(answers=[answer(status, f"location: {private.url()}")]) as receiver:
        assert await send(settings, receiver.url()) is Outcome.REJECTED
        assert (len(receiver.told), private.told) == (1, [])


async def test_who_is_not_there_is_unreachable(settings: Settings, resolving: dict[str, list[list[str]]]) -> None:
    with socket.create_server((LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    assert await send(settings, f"http://127.0.0.1:{port}/") is Outcome.UNREACHABLE
    assert await send(settings, "http://no-such-name.invalid/") is Outcome.UNREACHABLE


def test_a_network_can_be_allowed() -> None:
    networks = (ip_network("10.1.0.0/16"), ip_network("fd00::/8"))
    for address, expected in (("10.1.2.3", True), ("10.2.0.1", False), ("fd12::1", True), ("::ffff:10.1.2.3", True),
                              ("::1", False), (PUBLIC, True)):  # fmt: skip
        assert allowed(ip_address(address), networks) is expected, address
