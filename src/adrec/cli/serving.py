"""Commands of the service: serve, key."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adrec.cli.options import Data, Device, OwnModel, Quiet, RunFolder, console_for, use_own_model, use_threads
from adrec.utils.errors import ConfigError, needs_extra
from adrec.utils.interrupts import Interrupted

if TYPE_CHECKING:
    from adrec.serve.app import Service

KEEP_ALIVE = 75  # seconds that an idle connection stays open
DRAIN = 10  # seconds in which requests are finished after SIGTERM


def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with digests of the API keys (adrec key); needed beyond this machine.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Listen beyond this machine without API keys.")] = False,
    data: Data = None,
    own_model: OwnModel = None,
    device: Device = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Number of CPU threads of the inference.")] = 1,
    quiet: Quiet = False,
) -> None:
    """Serve recommendations of a run over HTTP."""
    if api_key_file is None and not insecure and not _is_loopback(host):
        raise ConfigError(
            f"--host {host} can be reached from other machines: give --api-key-file (adrec key makes a key), or "
            "--insecure."
        )
    try:
        import uvicorn

        from adrec.serve.app import Service
        from adrec.serve.loading import load
    except ImportError as error:
        raise ConfigError(needs_extra("serving", "serve")) from error
    from adrec.serve.keys import read_keys

    keys = () if api_key_file is None else read_keys(api_key_file)
    console = console_for(quiet)
    listening = _listen(host, port)
    use_threads(threads)
    use_own_model(own_model)
    engine, about = load(run, data=data, device=device)
    service: Service = Service(engine, about, keys=keys)
    config = uvicorn.Config(
        service.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=2048,
    )
    address = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    console.print(f"Serving {run} ({about.name}, {engine.num_items:,} items) at {address}; POST {address}/v1/recommend")
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except Interrupted:  # uvicorn has finished the requests, and sends the signal on
        console.print("Ended.")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raises :class:`ConfigError` if the address is taken or unknown."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except OSError as error:
        raise ConfigError(f"{host} port {port} cannot be listened on ({error.strerror or error}).") from error
    return found


def key() -> None:
    """Make an API key: prints the key, and its digest for the file of --api-key-file."""
    from adrec.serve.keys import new_key

    made, digest = new_key()
    print(f"key     {made}\ndigest  {digest}")
