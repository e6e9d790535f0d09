"""Puts the server together. The only place that may import everything; nothing imports it but the doors."""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvloop
from starlette.types import ASGIApp

from skylift.api.app import build as build_app
from skylift.api.auth import device_by_token
from skylift.api.context import Context
from skylift.api.door import Hall
from skylift.api.front import Front
from skylift.api.hop import Hop, TrustedHop
from skylift.api.listening import ask_for_certificates, listening, tls
from skylift.api.metrics import Metrics
from skylift.core.deadlines import Deadlines
from skylift.core.errors import SkyliftError, Unavailable, invalid
from skylift.core.lifecycle import UpdateState
from skylift.engine import access, deltas, log, sealed, waiting
from skylift.engine.behind import SeenBook
from skylift.engine.blobs import Blobs, BlobStore
from skylift.engine.broker import EmbeddedBroker
from skylift.engine.checkin import Checkin, LiveCache
from skylift.engine.chores import Chores
from skylift.engine.identity import Revocations, open_authorities
from skylift.engine.loop import Loop
from skylift.engine.matching import Matching
from skylift.engine.moves import Cancel
from skylift.engine.notify import Doorbell, PhaseBell
from skylift.engine.oidc import Oidc, Provider, roles_of
from skylift.engine.online import OnlineKeys
from skylift.engine.outbox import Courier
from skylift.engine.pace import Load, Pace
from skylift.engine.post import Mail, Post, check_public_url
from skylift.engine.proofs import Proofs
from skylift.engine.retention import Purge, Retention
from skylift.engine.rollback import roll_back
from skylift.engine.sample import Sample
from skylift.engine.sealed import Seal
from skylift.engine.serving import Tally
from skylift.engine.together import Reports
from skylift.engine.unblob import Unblob
from skylift.engine.uploads import Uploads
from skylift.engine.workshop import Bounds, Workshop
from skylift.settings import Settings
from skylift.store.db import Database, migrate
from skylift.store.gather import Gather
from skylift.store.glance import Glances, glances
from skylift.store.notices import Listener

LOG = structlog.get_logger("skylift")
Clock = Callable[[], datetime]
LAG_LOOK_S = 0.25
GARBAGE = 20_000  # objects made and not yet gone: what a thousand requests under way hold is none


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class SkyliftServer:
    """The parts, started and stopped in order."""

    settings: Settings
    database: Database
    app: ASGIApp
    front: Front
    loop: Loop
    courier: Courier
    workshop: Workshop
    tally: Tally
    seen: SeenBook
    broker: EmbeddedBroker | None
    bell: Doorbell | None
    eyes: Glances
    load: Load
    listener: Listener | None

    def start(self) -> None:
        if self.listener is not None:
            self.listener.start()
        self.loop.start()
        self.courier.start()
        self.workshop.start()

    def stop(self) -> None:
        """Finish what is under way; nothing that was acknowledged depends on this."""
        self.workshop.stop()
        self.courier.stop()
        self.loop.stop()
        if self.listener is not None:
            self.listener.stop()
        if self.bell is not None:
            self.bell.close()
        if self.broker is not None:
            self.broker.stop()
        try:
            self.seen.flush()
            self.tally.flush()
        except SkyliftError as e:
            LOG.warning("last contacts not written", error=str(e))
        self.eyes.close()
        self.database.close()

    @property
    def mqtt_url(self) -> str:
        """Where devices ring in, without the server's own user and password; empty without a doorbell."""
        if self.broker is not None:
            return self.broker.url
        if self.settings.mqtt_url == "off":
            return ""
        where = urlsplit(self.settings.mqtt_url)
        return where._replace(netloc=where.netloc.rpartition("@")[2]).geturl()


def build(settings: Settings, clock: Clock = utc_now) -> SkyliftServer:
    """Everything, not yet started. Makes what a first start needs: schema, keys, an admin's token."""
    data = settings.data_dir
    data.mkdir(parents=True, exist_ok=True)
    migrate(settings.database)
    database = Database(settings.database)
    try:
        return _assemble(settings, database, clock)
    except BaseException:
        database.close()
        raise


def _assemble(settings: Settings, database: Database, clock: Clock) -> SkyliftServer:
    data = settings.data_dir
    hop = Hop.read(settings.trusted_proxies, settings.proxy_secret)
    if settings.require_client_certificates and not hop.proxies:
        raise invalid("require_client_certificates", True, "needs trusted_proxies, which say whose it was")
    mail = Mail.read(settings.smtp_url, settings.mail_from)
    public_url = check_public_url(settings.public_url)
    blobs = _blobs(settings)
    blobs.sweep(starting=True)
    folder = settings.keys_dir or data / "keys"
    online = OnlineKeys.open(folder)
    database.write(lambda conn: log.catch_up(conn, clock()))
    passphrase = settings.ca_passphrase
    authorities = database.write(lambda conn: open_authorities(conn, folder, passphrase, clock()))
    metrics = Metrics(database)
    proofs = Proofs(settings.require_signed_reports, lambda code: metrics.refused.labels(code).inc())
    database.write(lambda conn: online.claim(conn, settings.new_keys))
    seal = Seal.open(folder)
    database.write(lambda conn: sealed.claim(conn, seal, settings.new_keys))
    access.first_token(database, data / "admin.token", settings.admin_token, clock())
    deadlines = _deadlines(settings)
    lives = LiveCache(database)
    seen = SeenBook(database)
    compared = Matching(database, settings.check_interval_s)
    workshop = Workshop(database, blobs, clock, _bounds(settings))
    tally = Tally(database, clock, lambda way, reason: metrics.ways.labels(way, reason).inc())
    ratio, cache = settings.delta_max_ratio, settings.delta_cache_bytes
    planner = deltas.DeltaPlanner(database, clock, ratio, cache, workshop.poke)
    retention = Retention(database, settings.retention_days)
    chores = Chores(database, online, seen, blobs, compared, retention, tally, planner)
    load = Load(database.waiting)
    pace = Pace(
        settings.check_interval_s, settings.check_interval_waiting_s, settings.check_interval_busy_s, load
    )
    checkin = Checkin(lives, deadlines, pace, tally, ratio)
    sample = Sample(database, checkin, deadlines)
    loop = Loop(database, clock, deadlines, lives, (chores, sample))
    broker, bell = _doorbell(settings, database)
    post = Post(database, seal, clock, mail, public_url)
    handlers = _handlers(database, blobs, clock, deadlines, bell, planner) | {"delivery": post}
    courier = Courier(database, handlers, clock)

    def poke() -> None:
        loop.poke()
        courier.poke()

    context = Context(
        database=database,
        blobs=blobs,
        online=online,
        checkin=checkin,
        deadlines=deadlines,
        clock=clock,
        poke=poke,
        settled=loop.settled,
        seen=seen.note,
        reports=Gather(database, Reports(deadlines, proofs, seen.progress)),
        health=seen.note_health,
        metrics=metrics,
        proofs=proofs,
        authorities=authorities,
        seal=seal,
        tally=tally,
        revocations=Revocations(database, authorities, clock),
        max_body=settings.max_body_bytes,
        max_image=settings.max_image_bytes,
        max_trust_file=settings.max_trust_file_bytes,
        can_mail=post.can_mail,
        oidc=_oidc(settings, public_url, seal),
        approval_above=settings.approval_above_devices or None,
        uploads=Uploads(data / "uploads", settings.max_image_bytes),
        certificates_required=settings.require_client_certificates,
        metrics_public=settings.metrics_public,
        poll_in_loop=database.dialect == "sqlite",
    )
    eyes = glances(settings.database)
    app, front = TrustedHop(build_app(context), hop), Front(context, eyes)
    listener = Listener(settings.database, lives.invalidate) if database.dialect == "postgresql" else None
    return SkyliftServer(
        settings,
        database,
        app,
        front,
        loop,
        courier,
        workshop,
        tally,
        seen,
        broker,
        bell,
        eyes,
        load,
        listener,
    )


def _oidc(settings: Settings, public_url: str, seal: Seal) -> Oidc | None:
    if not settings.oidc_issuer:
        return None
    for name, value in (
        ("public_url", public_url),
        ("oidc_client_id", settings.oidc_client_id),
        ("oidc_client_secret", settings.oidc_client_secret),
        ("oidc_roles", settings.oidc_roles),
    ):
        if not value:
            raise invalid(name, "", "is needed with oidc_issuer")
    provider = Provider(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret,
        settings.oidc_title,
        settings.oidc_scopes,
        settings.oidc_name_claim,
        settings.oidc_role_claim,
        roles_of(settings.oidc_roles),
        f"{public_url}/ui/oidc/back",
    )
    return Oidc(provider, seal)


def _blobs(settings: Settings) -> Blobs:
    if not settings.blobs.startswith("s3:"):
        folder = Path(settings.blobs) if settings.blobs else settings.data_dir / "blobs"
        return BlobStore(folder, shared=bool(settings.blobs))
    try:
        from skylift.engine.bucket import Bucket, Place
    except ModuleNotFoundError as e:
        raise invalid("blobs", settings.blobs, f"needs {e.name}: pip install 'skylift[s3]'") from e
    place = Place(
        settings.blobs,
        settings.blobs_endpoint,
        settings.blobs_public_endpoint,
        settings.blobs_region,
        settings.blobs_allow_http,
    )
    bucket = Bucket(place, settings.data_dir / "scratch")
    with suppress(Unavailable):  # it has been logged; devices can ask, and wait for their downloads
        bucket.check()
    return bucket


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        settings.delta_workers,
        settings.delta_worker_memory_bytes,
        settings.delta_worker_seconds,
        settings.delta_cache_bytes,
        settings.delta_max_ratio,
    )


def _deadlines(settings: Settings) -> Deadlines:
    seconds = {
        UpdateState.PENDING: settings.pending_deadline_s,
        UpdateState.DOWNLOADING: settings.downloading_deadline_s,
        UpdateState.INSTALLING: settings.installing_deadline_s,
        UpdateState.VALIDATING: settings.validating_deadline_s,
    }
    return Deadlines({state: timedelta(seconds=s) for state, s in seconds.items()})


def _doorbell(settings: Settings, database: Database) -> tuple[EmbeddedBroker | None, Doorbell | None]:
    if settings.mqtt_url == "off":
        return None, None
    if settings.mqtt_url:
        return None, Doorbell(settings.mqtt_url)

    def admits(device_id: str, token: str) -> bool:
        with database.read() as conn:
            found = device_by_token(conn, token)
        return found is not None and found.device_id == device_id

    broker = EmbeddedBroker(admits, settings.host, settings.mqtt_port)
    broker.start()
    return broker, Doorbell(broker.own_url)


def _handlers(
    database: Database,
    blobs: Blobs,
    clock: Clock,
    deadlines: Deadlines,
    bell: Doorbell | None,
    planner: deltas.DeltaPlanner,
) -> dict[str, Callable[[dict[str, Any]], None]]:
    def recount(payload: dict[str, Any]) -> None:
        waiting.recount(database, payload["deployment"], clock())

    def send_back(payload: dict[str, Any]) -> None:
        roll_back(database, payload["deployment"], "skylift", clock(), deadlines)

    def nobody(payload: dict[str, Any]) -> None:
        """No broker: devices come at their next poll."""

    return {
        "deltas": planner,
        "unblob": Unblob(database, blobs),
        "recount": recount,
        "purge": Purge(database),
        "cancel": Cancel(database, clock, deadlines),
        "rollback": send_back,
        "doorbell": PhaseBell(database, bell) if bell is not None else nobody,
    }


# --- serving -----------------------------------------------------------------------------------------


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT. One process; killed at any moment, it goes on where it was."""
    # Not /dev/stderr: opening it truncates a log file, and fails where stderr is a socket (systemd).
    # Tracebacks without the values of variables: among them are tokens.
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[*structlog.get_config()["processors"][:-1], plain],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    with listening(settings.host, settings.port) as door:
        context = tls(settings.tls_certificate, settings.tls_key)
        server = build(settings)
        if context is not None and settings.tls_client_ca is not None:
            ask_for_certificates(context, settings.tls_client_ca)
        hall = Hall(server.app, server.front)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        server.start()
        gc.freeze()  # what is there now stays: looking through it stopped every poll for a while
        gc.set_threshold(GARBAGE)
        try:
            await hall.open(door, context)
            url = f"{'https' if context else 'http'}://{settings.host}:{door.getsockname()[1]}"
            _announce(settings.data_dir, {"url": url, "pid": os.getpid(), "mqtt": server.mqtt_url})
            LOG.info("listening", url=url, mqtt=server.mqtt_url, data=str(settings.data_dir))
            watching = asyncio.create_task(_watch_lag(server.load))
            await stopped.wait()
            watching.cancel()
        finally:
            await hall.close()
            await asyncio.to_thread(server.stop)


async def _watch_lag(load: Load) -> None:
    """How late the event loop wakes up says how busy it is."""
    clock = asyncio.get_running_loop().time
    while True:
        meant = clock() + LAG_LOOK_S
        await asyncio.sleep(LAG_LOOK_S)
        load.note_lag(max(0.0, clock() - meant))


def _announce(data: Path, what: dict[str, Any]) -> None:
    temporary = data / "server.json.new"
    temporary.write_text(json.dumps(what))
    temporary.replace(data / "server.json")


@asynccontextmanager
async def running(server: SkyliftServer) -> AsyncIterator[SkyliftServer]:
    """Start and stop around a block; for tests that drive the application in-process."""
    server.start()
    try:
        yield server
    finally:
        await asyncio.to_thread(server.stop)
