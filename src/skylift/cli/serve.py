"""`skylift serve`: the server. One of the three doors by which the CLI reaches further than HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.exits import Exit, Leave
from skylift.cli.front import before


# No defaults here: what is not given comes from `SKYLIFT_...` variables, then skylift.toml, then Settings.
def serve(
    data: Annotated[
        Path | None, typer.Option(help="Keys, blobs, and the database unless given. Else skylift-data.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="The address to listen on. Else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="0: any free one. Else 8080.")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql://user@host/name")] = None,
    mqtt: Annotated[str | None, typer.Option(help="mqtt://user:password@host:port, or off")] = None,
    gateway: Annotated[
        list[Path] | None,
        typer.Option(exists=True, help="Run the gateway before it, of this file; repeatable."),
    ] = None,
    gateway_listen: Annotated[
        str, typer.Option(help="Where the gateway's listener `http` listens.")
    ] = "127.0.0.1:8000",
    mqtt_port: Annotated[
        int | None, typer.Option(help="Of the embedded broker; 0: any free one. Else 1883.")
    ] = None,
) -> None:
    """Run the fleet server. Everything it needs is made in --data at the first start."""
    try:
        from skylift.settings import read
        from skylift.wiring import serve as run
    except ModuleNotFoundError as e:
        raise Leave(Exit.ERROR, f"{e.name} is not installed: pip install 'skylift[server]'") from e

    given: dict[str, Any] = {
        "data_dir": data,
        "host": host,
        "port": port,
        "database_url": database,
        "mqtt_url": mqtt,
        "mqtt_port": mqtt_port,
    }
    settings = read(**{name: value for name, value in given.items() if value is not None})
    with before(settings.data_dir, tuple(gateway or ()), gateway_listen):
        run(settings)
