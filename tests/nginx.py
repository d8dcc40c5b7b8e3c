"""A real nginx on loopback ports. It is looked for beside PATH where Debian installs it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.limits import HANG_S

__all__ = ["make_certificate", "needs_nginx", "running_nginx"]

FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
NGINX = shutil.which("nginx") or shutil.which("nginx", path=":".join(FOLDERS))
OPENSSL = shutil.which("openssl")
#: Folders that nginx creates at its start, used or not.
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt-get install nginx)")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Makes a certificate of `localhost` that signs itself, and its key. Skips the test without OpenSSL's program."""
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / "localhost.pem", folder / "localhost.key"
    command = [
        OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out",
        str(certificate),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@contextmanager
def running_nginx(folder: Path, servers: Mapping[int, str], outside: Sequence[str] = ()) -> Iterator[None]:
    """Runs nginx with a server for each port, which has these directives; `outside` are directives of all of them."""
    assert NGINX is not None
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in TEMPORARY)
    written = "".join(f"server {{ {directives} }}\n" for directives in servers.values())
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{paths}{''.join(outside)}\n{written}}}\n"
    )
    process = subprocess.Popen(
        [NGINX, "-p", folder, "-c", folder / "nginx.conf"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for port in servers:
            _wait_until_open(port, process, folder / "error.log")
        yield
    finally:
        process.terminate()
        process.wait(HANG_S)


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + HANG_S
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "nginx does not come up"
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
