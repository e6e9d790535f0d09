"""A simulation as it is told: what was asked for, what came of it, and in what it was not real life."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

from rich.console import Console

from skylift.cli.client import Client
from skylift.testkit.behaviours import DEFAULT, Behaviour
from skylift.testkit.fleet import DEVICE_TYPE, Fleet
from skylift.testkit.identity import Identity
from skylift.testkit.judge import clean
from skylift.testkit.meter import Kind
from skylift.testkit.progress import tell
from skylift.testkit.report import Facts, Look
from skylift.testkit.stage import Stage

LEAST_DEADLINE_S = 10.0
FELL_BEHIND_S = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. Minutes are the server's, real; `speed` divides the devices' times."""

    devices: int = 1_000_000
    seed: int = 1
    speed: float = 5.0
    minutes: float = 30.0
    behaviours: tuple[Behaviour, ...] = DEFAULT
    polls_per_s: float = 1_000.0
    connections: int = 64
    download: bool = False
    image_kb: int = 200
    server: str = ""
    token: str = ""
    release: str = ""
    device_type: str = DEVICE_TYPE
    database: str = ""
    phases: tuple[float, ...] = (5, 100)
    interval_minutes: float = 0.05
    wait_minutes: float = 0.5
    threshold_percent: float = 10.0
    page: Path | None = None


@dataclass
class Run:
    """One simulation under way."""

    options: Options
    console: Console
    stage: Stage | None = None
    client: Client | None = None
    deployment: str = ""
    looks: list[Look] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    ended: str = ""

    def say(self, sentence: str) -> None:
        tell(self.console, sentence)

    @property
    def identity(self) -> Identity:
        # On somebody's server the name says which simulation it was; names there stay.
        prefix = f"sim{self.options.seed}" if self.options.server else "sim"
        return Identity(self.options.seed, self.options.devices, self.options.behaviours, prefix)

    @property
    def database(self) -> str:
        """The own server's."""
        if self.options.database or self.stage is None:
            return self.options.database
        return f"sqlite:///{self.stage.home / 'data' / 'skylift.db'}"


def summary(this: Run, fleet: Fleet, judgement: dict[str, Any], seconds: float) -> dict[str, Any]:
    options, meter, memory = this.options, fleet.meter, fleet.memory
    last: dict[str, Any] = dict(this.looks[-1].seen) if this.looks else {}
    asked = sum(histogram.count for histogram in meter.since_due.values())
    return {
        "server": options.server or "its own",
        "database": this.database.partition(":")[0].partition("+")[0],
        "devices": options.devices,
        "seed": options.seed,
        "speed": options.speed,
        "seconds": round(seconds, 1),
        **this.facts,
        "ended": this.ended,
        "deployment": this.deployment,
        "status": last.get("status", ""),
        "status_reason": last.get("status_reason", ""),
        "totals": last.get("totals", {}),
        "phases_opened": sum(phase["state"] != "closed" for phase in last.get("phases", ())),
        "requests": asked,
        "requests_per_s": round(asked / max(this.facts["run_s"], 0.1), 1),
        "checks_answered": fleet.checks,
        "offers": sum(past.offers for past in memory.past.values()),
        "reports_acknowledged": memory.reports,
        "reports_known_already": sum(past.known_already for past in memory.past.values()),
        "requests_unanswered": fleet.outages,
        "lost_on_purpose": fleet.lost_on_purpose,
        "asked_to_wait": fleet.asked_to_wait,
        "most_in_flight": max((second.in_flight for second in meter.seconds), default=0),
        "fell_silent": fleet.silent,
        "simulator_mb": round(getrusage(RUSAGE_SELF).ru_maxrss / 1024),
        "latency": meter.view(),
        "judgement": judgement,
        "clean": clean(judgement),
    }


def facts(this: Run, fleet: Fleet, told: dict[str, Any]) -> Facts:
    opened: dict[str, float] = {}
    for look in this.looks:
        for phase in look.seen["phases"]:
            if phase["state"] != "closed":
                opened.setdefault(phase["name"], look.at)
    return Facts(
        title=f"Skylift: {this.options.devices:,} simulated devices",
        summary=told,
        compressed=tuple(_compressed(this, fleet)),
        seconds=fleet.meter.seconds,
        looks=this.looks,
        phases=tuple((at, name) for name, at in opened.items()),
        behaviours=tuple((b.name, f"{b.share:g} %", _does(b)) for b in this.options.behaviours),
    )


def _compressed(this: Run, fleet: Fleet) -> Iterator[str]:
    """Everything in which this was not real life."""
    options, speed = this.options, f"{this.options.speed:g}"
    if options.speed != 1:
        yield f"devices' times (between two reports, between two polls, offline) are divided by {speed}"
    if fleet.apart_s * options.speed > 300:
        apart = fleet.apart_s * options.speed
        yield (
            f"the idle fleet asks at most {options.polls_per_s:g} times a second: a device's polls are "
            f"{fleet.apart_s:,.0f} s apart, {apart:,.0f} s of its own time; the server asked for 300 or less"
        )
    waited = fleet.meter.since_due[Kind.POLL].percentile(50)
    if waited is not None and waited > FELL_BEHIND_S:
        yield (
            f"the server could not answer as many polls as were due: half of them waited {waited:,.0f} s "
            "or more for a connection; devices on their way went first"
        )
    if this.stage is not None and options.speed != 1:
        yield (
            f"the server's clock is real; its deadlines for silent devices are divided by {speed}, "
            f"but not below {LEAST_DEADLINE_S:g} s"
        )
    yield (
        f"phases soak {options.interval_minutes:g} minutes and wait {options.wait_minutes:g} minutes for "
        "devices to ask; real fleets are given hours"
    )
    yield "devices verify nothing, write no flash and do not reboot" + (
        "" if options.download else "; they download nothing"
    )
    yield f"{options.connections} connections are kept open; real devices open one each time, and pay for TLS"
    yield "there is no doorbell: devices hear of an update at their next poll"
    if this.stage is not None:
        yield "the devices were written into the database in bulk; none of them went through enrollment"
        yield "server and simulator share one machine"


def _does(behaviour: Behaviour) -> str:
    """A behaviour in words: what differs from the plainest one."""
    plain = Behaviour()
    parts = [
        (behaviour.loss_percent, f"loses {behaviour.loss_percent:g} % of requests or answers"),
        (behaviour.think_s != plain.think_s, "takes {:g} to {:g} s for a step".format(*behaviour.think_s)),
        (behaviour.repeats > 1, f"says everything {behaviour.repeats} times"),
        (behaviour.late, "says earlier stages again after the end"),
        (behaviour.clock_offset_s, f"its clock is {behaviour.clock_offset_s:+,.0f} s off"),
        (behaviour.away_hours, f"offline {behaviour.away_hours:g} h, online {behaviour.online_hours:g} h"),
        (behaviour.withdraws, "falls back after it had completed"),
        *((percent, f"{percent:g} % end {end.replace('_', ' ')}") for end, percent in behaviour.ends.items()),
        (behaviour.labels, ", ".join(f"{name}={value}" for name, value in behaviour.labels.items())),
    ]
    return "; ".join(text for said, text in parts if said) or "does what it should"


def tell_end(this: Run, told: dict[str, Any]) -> None:
    """A few lines for people."""
    polls = told["latency"].get("poll", {}).get("since_due", {})
    this.say(
        f"{told['ended']}: {told['requests']:,} requests in {told['run_s']:g} s "
        f"({told['requests_per_s']:g}/s), {told['most_in_flight']:,} devices in flight at most"
    )
    if polls:
        this.say(
            "polls: "
            + ", ".join(f"{name.removesuffix('_ms')} {polls[name]} ms" for name in polls if "_ms" in name)
        )
    judged = {name: value for name, value in told["judgement"].items() if name != "findings"}
    colour = "green" if told["clean"] else "red"
    this.console.print(
        f"[{colour}]" + ", ".join(f"{n.replace('_', ' ')} {v}" for n, v in judged.items()) + f"[/{colour}]"
    )
    for finding in told["judgement"]["findings"]:
        this.console.print(f"  {finding}", markup=False, highlight=False)
    if "report" in told:
        this.say(f"report: {told['report']}")
