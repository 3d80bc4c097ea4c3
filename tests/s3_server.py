"""A real S3 server on this machine: moto's, in a process of its own, which knows nothing of the code that asks it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Server:
    endpoint: str
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a user sets for a server of their own, and nothing of the machine's own ~/.aws."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": str(self.log.with_name("no config")),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.log.with_name("no credentials")),
            **dict.fromkeys(CREDENTIALS, "test"),
        }

    def asked(self, method: str, of: str) -> int:
        """How many requests of this kind the server has logged for keys that contain `of`."""
        return sum(f'"{method} /' in line and of in line for line in self.log.read_text(encoding="utf-8").splitlines())


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[Server]:
    """With one empty bucket, called `bucket`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", folder / "s3.log")
    with server.log.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        given_up = time.monotonic() + PATIENCE_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < given_up, server.log.read_text(encoding="utf-8")
            with contextlib.suppress(OSError), urllib.request.urlopen(urllib.request.Request(f"{server.endpoint}/bucket", method="PUT")):
                break
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()
