"""python -m assets.service: serve the published table on 127.0.0.1. Settings: section search of params.yaml."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import sys
import threading

from assets.errors import UserError
from assets.search_table.query import search
from assets.search_table.query_settings import settings
from assets.search_table.table import open_version

HOST = "127.0.0.1"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m assets.service", description="Serve the published table on this machine.")
    parser.add_argument("--port", type=int, help="0: any free one (default: search.port of params.yaml)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        own = settings().search
        open_version()
        listening = _listen(own.port if given.port is None else given.port)
    except UserError as error:
        print("error:", error, file=sys.stderr)
        return 1
    import uvicorn

    from assets.service.app import make_app
    from assets.service.impatient import impatient

    threading.Thread(target=_warm_up, daemon=True).start()
    port = listening.getsockname()[1]
    print(f"http://{HOST}:{port} searches the table; http://{HOST}:{port}/docs describes the API. Ctrl-C stops it.", flush=True)
    config = uvicorn.Config(
        make_app(own),
        log_level="warning",
        access_log=False,
        limit_concurrency=own.max_connections + 1,  # it counts who asks, too
        timeout_keep_alive=5,
        h11_max_incomplete_event_size=16 * 1024,  # of headers
        http=impatient(own.patience_seconds),
        lifespan="off",
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])
    return 0


def _warm_up() -> None:
    """The first search loads the model, a hybrid one LanceDB too: not while the first reader waits."""
    with contextlib.suppress(UserError):
        search("a picture", k=1, by="hybrid")


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UserError(
            f"port {port} of {HOST} cannot be used: {error.strerror}. Stop what uses it, or take another one: search.port in params.yaml,"
            " or make serve PORT=8001."
        ) from None
    except OverflowError:
        listening.close()
        raise UserError(f"port {port} is none: ports are 0 to 65535.") from None
    return listening


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
