"""`skylift simulate`: a fleet of a million, as data, against a real server. A door, as `demo` is."""

from pathlib import Path
from typing import Annotated

import typer

from skylift.cli.exits import Exit, Leave


def simulate(
    devices: Annotated[int, typer.Option(min=1, max=9_999_999, help="How many devices.")] = 1_000_000,
    speed: Annotated[float, typer.Option(min=0.01, max=10_000, help="Divides the devices' own times.")] = 5.0,
    minutes: Annotated[float, typer.Option(min=0.01, help="Ends after that long, whatever stands.")] = 30.0,
    behaviours: Annotated[
        Path | None,
        typer.Option(help="Who behaves how: a JSON, YAML or TOML file.", dir_okay=False, exists=True),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same devices.")] = 1,
    phases: Annotated[str, typer.Option(help="Cumulative percentages.")] = "5,100",
    interval: Annotated[float, typer.Option(min=0, help="Minutes each phase soaks.")] = 0.05,
    wait: Annotated[float, typer.Option(min=0, help="Minutes a phase waits for devices to ask.")] = 0.5,
    threshold: Annotated[float, typer.Option(min=0, max=100, help="Failure rate in percent.")] = 10.0,
    polls_per_second: Annotated[
        float, typer.Option(min=0, help="The idle fleet asks at most so often; 0: as often as it is told.")
    ] = 1_000.0,
    connections: Annotated[int, typer.Option(min=1, max=10_000, help="Kept open.")] = 64,
    download: Annotated[bool, typer.Option("--download", help="Fetch the image's bytes too.")] = False,
    image_kb: Annotated[int, typer.Option(min=1, max=1_000_000, help="Size of the image, KiB.")] = 200,
    report: Annotated[Path | None, typer.Option(help="The page to write; --report '' writes none.")] = Path(
        "skylift-simulate.html"
    ),
    database: Annotated[
        str | None, typer.Option(help="Of its own server: an empty postgresql://user@host/name.")
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="Another server than one of its own; its devices enroll there.")
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="SKYLIFT_TOKEN", help="An operator's token for --server.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="With --server: deploy this release or version to ALL its devices.")
    ] = None,
    device_type: Annotated[str, typer.Option("--type", help="The devices' type.")] = "sensor-v2",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object at the end.")] = False,
) -> None:
    """Drive a simulated fleet through a deployment, and judge what the server made of it.

    Exits 0 only if nothing acknowledged was lost and nobody was offered anything twice.
    """
    if server and database:
        raise Leave(
            Exit.USAGE, f"--database is {database!r}: belongs to a server of its own, not to --server"
        )
    if server and not token:
        raise Leave(Exit.USAGE, "--token is missing: --server needs an operator's")
    if release and not server:
        raise Leave(
            Exit.USAGE, f"--release is {release!r}: belongs to --server; its own server makes its own"
        )
    try:
        from skylift.testkit.behaviours import DEFAULT, read
        from skylift.testkit.simulate import run
        from skylift.testkit.summary import Options
    except ModuleNotFoundError as e:
        raise Leave(Exit.ERROR, f"{e.name} is not installed: pip install 'skylift[server]'") from e
    options = Options(
        devices=devices,
        seed=seed,
        speed=speed,
        minutes=minutes,
        behaviours=read(behaviours) if behaviours else DEFAULT,
        polls_per_s=polls_per_second,
        connections=connections,
        download=download,
        image_kb=image_kb,
        server=server or "",
        token=token or "",
        release=release or "",
        device_type=device_type,
        database=database or "",
        phases=_phases(phases),
        interval_minutes=interval,
        wait_minutes=wait,
        threshold_percent=threshold,
        page=report if report and report.name else None,
    )
    raise typer.Exit(run(options, as_json=as_json))


def _phases(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise Leave(Exit.USAGE, f"--phases is {text!r}: percentages with commas, such as 1,10,100") from e
