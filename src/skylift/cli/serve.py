"""`skylift serve`: the server. One of the three doors by which the CLI reaches further than HTTP."""

from pathlib import Path
from typing import Annotated, Any

import typer

from skylift.cli.exits import Exit, Leave


def serve(
    data: Annotated[Path, typer.Option(help="Keys, blobs, and the database unless given.")] = Path(
        "skylift-data"
    ),
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8080,
    database: Annotated[str | None, typer.Option(help="postgresql://user@host/name")] = None,
    mqtt: Annotated[str | None, typer.Option(help="mqtt://user:password@host:port, or off")] = None,
    mqtt_port: Annotated[int, typer.Option(help="Of the embedded broker; 0: any free one.")] = 1883,
) -> None:
    """Run the fleet server. Everything it needs is made in --data at the first start."""
    try:
        from skylift.settings import Settings
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
    run(Settings(**{name: value for name, value in given.items() if value is not None}))
