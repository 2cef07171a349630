"""Commands of the service: serve, key."""

from __future__ import annotations

import re
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from adrec.cli.options import Data, Device, OwnModel, Quiet, RunFolder, console_for, use_own_model, use_threads
from adrec.utils.errors import ConfigError, needs_extra
from adrec.utils.interrupts import Interrupted

if TYPE_CHECKING:
    from adrec.live.histories import Live
    from adrec.serve.models import Models

KEEP_ALIVE = 75  # seconds that an idle connection stays open
BACKLOG = 2048  # connections that wait to be accepted
DRAIN = 10  # seconds in which requests are finished after SIGTERM
ITEMS, CHANGES = "Items", "Models"


def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help="File with digests of the API keys (adrec key); needed beyond this machine.")
    ] = None,
    insecure: Annotated[bool, typer.Option(help="Listen beyond this machine without API keys.")] = False,
    events: Annotated[
        str | None, typer.Option(help="Store of live events: an SQLite file, which is made, or postgresql://..")
    ] = None,
    log: Annotated[Path | None, typer.Option(help="File to log what is shown in, for evaluate --served.")] = None,
    shadow: Annotated[
        Path | None, typer.Option(help="Run that is asked too; its answers are only logged.", rich_help_panel=CHANGES)
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(help="RUN=10%: another run answers this share of the users; repeatable.", rich_help_panel=CHANGES),
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(help="Table of items with their attributes, for filters.", rich_help_panel=ITEMS)
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Column of --attributes with the titles.", rich_help_panel=ITEMS)
    ] = None,
    category: Annotated[
        str | None, typer.Option(help="Column of --attributes with the category.", rich_help_panel=ITEMS)
    ] = None,
    index: Annotated[
        Literal["usearch"] | None,
        typer.Option(help="Index of nearest items, for large catalogues.", rich_help_panel=ITEMS),
    ] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Compute scores with ONNX Runtime, from RUN/onnx (adrec export RUN).")
    ] = False,
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
    if attributes is None and (names or category):
        raise ConfigError(f"--{'names' if names else 'category'} is a column of --attributes; give that table.")
    if shadow is not None and log is None:
        raise ConfigError("--shadow writes what it would have shown to the log; give --log FILE.")
    try:
        import uvicorn

        from adrec.serve.app import Options, Service
        from adrec.serve.models import Loading, Models
        from adrec.serve.shown import Shown
    except ImportError as error:
        if (error.name or "").startswith("adrec"):
            raise
        raise ConfigError(needs_extra("serving", "serve")) from error
    from adrec.serve.keys import read_keys

    splits = tuple(_split(each) for each in split or ())
    if sum(share for _, share in splits) >= 1:
        raise ConfigError("the shares of --split must leave some users to RUN; give less than 100% in all.")
    keys = () if api_key_file is None else read_keys(api_key_file)
    console = console_for(quiet)
    listening = _listen(host, port)
    use_threads(threads)
    use_own_model(own_model)
    table = None if attributes is None else _attributes(attributes, names, category)
    models = Models(Loading(data, device, table, names, index, onnx, threads), run, shadow=shadow, splits=splits)
    live = None if events is None else _live(events, models)
    shown = None if log is None else Shown(log)
    service = Service(models, live=live, shown=shown, options=Options(keys, category, local=_is_loopback(host)))
    config = uvicorn.Config(
        service.app(),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=BACKLOG,
    )
    address = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    current = models.current
    found = current.engine.index
    listening.listen(BACKLOG)  # who reads the next line may connect
    for line in _told(models, live):
        console.print(line)
    console.print(
        f"Serving {run} ({current.name}, {current.engine.num_items:,} items) at {address}; "
        f"POST {address}/v1/recommend, or open {address}/"
        + ("" if found is None else f". The index finds {found.recall:.1%} of each list's items.")
    )
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except Interrupted:  # uvicorn has finished the requests, and sends the signal on
        console.print("Ended.")


def _told(models: Models, live: Live | None) -> list[str]:
    """Return what else there is to say of the service."""
    said = []
    if live is not None:
        what = f"{live.store.num_events:,} events" if live.store.last else "new, without events"
        said.append(f"Events: {live.store.place} ({what})")
    if models.shadow is not None:
        said.append(f"Shadow: {models.shadow.run}; its lists are only logged")
    said += [f"Split: {share:.0%} of the users are answered by {model.run}" for model, share in models.splits]
    attributes = models.current.attributes
    if attributes is not None:
        known = models.current.engine.num_items
        said.append(f"Attributes: {attributes.num_items:,} of the {known:,} items have them")
    return said


def _split(text: str) -> tuple[Path, float]:
    """Return the run and the share of ``RUN=10%``."""
    found = re.fullmatch(r"(.+)=(\d+(?:\.\d+)?)%", text)
    if found is None or not 0 < float(found[2]) < 100:
        raise ConfigError(f"--split takes a run and a share of the users, such as runs/new=10%; it was given {text!r}.")
    return Path(found[1]), float(found[2]) / 100


def _attributes(path: Path, names: str | None, category: str | None) -> Any:
    from adrec.data.lists import read_attributes

    table = read_attributes(path)
    for column in (names, category):
        if column is not None and column not in table.columns:
            read_attributes(path, [column])  # says which columns there are
    return table


def _live(place: str, models: Models) -> Live:
    from adrec.live.histories import Live
    from adrec.live.store import Store

    store = Store(place, writes=True)
    models.check_store(store.id, store.last)
    return Live(store, models.oldest_event(store.id))


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
