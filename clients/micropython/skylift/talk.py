"""What is said to the server, and what it answers. Anything but a well-formed 200 is "no update now"."""

import json
import time
from binascii import hexlify

from skylift.http import Broken
from skylift.records import ANSWERED, FETCHING, IDLE
from skylift.trust.compact import LOG_MAX, ORDER_MAX, ROLE_MAX, ROOT_MAX, Device
from skylift.trust.plain import Refused

QUIET_MS = 30000
ANSWER_MOST = 8192
LONGEST_S, USUAL_S = 3600, 300
REFUSED = (400, 403, 404, 409, 413, 422)  # repeating does not mend it
OPEN = ("pending", "downloading", "installing", "validating")


class Away(Exception):
    """Come again. `retry_after` in seconds."""

    def __init__(self, words, retry_after=0):
        super().__init__(words)
        self.words = words
        self.retry_after = retry_after


class Bad(Exception):
    """This update is over; the reason is one of the lifecycle's."""

    def __init__(self, reason, words):
        super().__init__(words)
        self.reason = reason
        self.words = words


class Ended(Exception):
    """The server has ended this update."""


class Found:
    """What a check came to: `image` as two release keys signed it or None, `url` on this server,
    milliseconds until the next check, and whether the server asks how the device is."""

    def __init__(self, wait, image=None, url="", health=False):
        self.wait = wait
        self.image = image
        self.url = url
        self.health = health


def remember(answered, tag):
    """The last few, this one too."""
    return answered if tag in answered else (answered + [tag])[-ANSWERED:]


# --- one exchange -------------------------------------------------------------------------------------


def headed(http):
    """Waits for the answer's head; `Broken` where the server went quiet."""
    asked = time.ticks_ms()
    while not http.head():
        if time.ticks_diff(time.ticks_ms(), asked) > QUIET_MS:
            raise Broken("the server went quiet")
        yield 2


def exchange(client, method, path, most, said=None):
    """One request and its whole answer: the body; the status stays in `client.http`."""
    http = client.http
    body = None if said is None else json.dumps(said).encode()
    try:
        http.ask(method, path, client.token(), body)
        yield 0
        yield from headed(http)
        client.reached = True
        found, moved = b"", time.ticks_ms()
        while (piece := http.some(1024)) != b"":
            if piece is None:
                if time.ticks_diff(time.ticks_ms(), moved) > QUIET_MS:
                    raise Broken("the server went quiet")
                yield 2
                continue
            found, moved = found + piece, time.ticks_ms()
            if len(found) > most:
                raise Away("an answer is larger than this device takes", 60)
            yield 0
    finally:
        http.close()
    return found


def refused_or_away(http, words):
    return Away(words, min(http.retry_after(), LONGEST_S) or 30)


def _table(body):
    """A JSON object, or {}."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


# --- enrolment and reports ----------------------------------------------------------------------------


def enroll(client):
    config, facts = client.config, client.records.facts
    if config.token or facts["enrolled"] or not config.claim:
        return
    client.state = "enroll"
    if not facts["token"]:
        facts["token"] = "dev_" + hexlify(client.port.random(24)).decode()
        if not client.records.save("facts"):
            facts["token"] = ""  # a token that is not kept must not be told to anybody
            raise Away("the key-value store cannot be written: not enrolled", 60)
    said = {
        "claim": config.claim,
        "device_id": config.device_id,
        "device_type": config.device_type,
        "token": facts["token"],
    }
    yield from exchange(client, "POST", "/api/enroll", ANSWER_MOST, said)
    if client.http.status not in (200, 201):
        raise refused_or_away(client.http, "the server does not enroll this device")
    facts["enrolled"] = True
    client.records.save("facts")


def _report(client, state):
    journal, config = client.records.journal, client.config
    said = {
        "device_id": config.device_id,
        "deployment": journal["deployment"],
        "attempt": journal["attempt"],
        "state": state,
    }
    if state in ("failed", "rolled_back"):
        said.update({"reason": journal["reason"], "error_message": journal["words"]})
    elif state == "complete":
        said.update({"progress": 100, "image_sha256": journal["sha256"], "version": config.version})
    return said


def report(client):
    """The final report that waits, if one does."""
    journal = client.records.journal
    if not journal["to_say"]:
        return
    client.state = "report"
    said = _report(client, journal["to_say"])
    yield from exchange(client, "POST", "/api/updates/status", ANSWER_MOST, said)
    if client.http.status != 200 and client.http.status not in REFUSED:
        raise refused_or_away(client.http, "the report was not taken")
    client.away = 0
    journal["ended"], journal["to_say"] = journal["to_say"], ""
    client.records.save("journal")


def say(client, state, percent):
    """A report on the way: lost ones do no harm. Raises `Ended` when the server has ended this update."""
    client.hooks.progress(percent)
    said = _report(client, state)
    said["progress"] = percent
    try:
        body = yield from exchange(client, "POST", "/api/updates/status", ANSWER_MOST, said)
    except (Broken, Away) as e:
        return client.port.log(e.words)
    now = _table(body).get("state", "") if client.http.status == 200 else ""
    if now and now not in OPEN:
        client.port.log("the server has ended this update")
        client.records.journal["stage"] = IDLE
        client.records.save("journal")
        raise Ended()


def health(client):
    """How the device is: asked for where a gate compares it with others. Nobody's update waits for it."""
    verdict = client.hooks.healthy()
    if verdict is None:
        return
    client.state = "health"
    said = {"healthy": bool(verdict), "metrics": client.hooks.metrics()}
    path = "/api/devices/" + _escaped(client.config.device_id) + "/health"
    try:
        yield from exchange(client, "POST", path, ANSWER_MOST, said)
    except (Broken, Away) as e:
        client.port.log(e.words)


# --- the check, and what it leads to ------------------------------------------------------------------


def _escaped(value):
    safe = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~"
    return "".join(
        [
            chr(byte) if chr(byte) in safe else "%" + hexlify(bytes([byte])).decode().upper()
            for byte in value.encode()
        ]
    )


def check(client):
    """Asks, and verifies what is ordered. Raises `Bad` for an order that does not hold."""
    client.state = "check"
    config, facts, port = client.config, client.records.facts, client.port
    nonce = hexlify(port.random(16)).decode()
    said = [
        ("device_id", config.device_id),
        ("device_type", config.device_type),
        ("current_version", config.version),
        ("nonce", nonce),
    ]
    running = facts["images"].get(port.name(port.running))
    if running:
        said.append(("image_sha256", running[1]))
    asked = "&".join([name + "=" + _escaped(value) for name, value in said])
    body = yield from exchange(client, "GET", "/api/updates/check?" + asked, ANSWER_MOST)
    if client.http.status != 200:
        raise refused_or_away(client.http, "the check is not answered with 200: no update now")
    told = _table(body)
    if not isinstance(told.get("update_available"), bool):
        raise Away("the check's answer makes no sense: no update now", 60)
    client.away = 0
    wait = _pause(client, told.get("retry_after"))
    if not told["update_available"]:
        return Found(wait, health=told.get("report_health") is True)
    journal, trust = client.records.journal, told.get("trust")
    deployment, attempt = told.get("deployment"), told.get("attempt")
    if not isinstance(trust, dict) or not isinstance(deployment, str) or not isinstance(attempt, int):
        raise Away("the check's answer makes no sense: no update now", 60)
    if deployment + "/" + str(attempt) in journal["answered"]:
        return Found(wait)
    if journal["stage"] != FETCHING:  # what names a refusal, until the order is read
        journal["deployment"], journal["attempt"] = deployment, attempt
    try:
        image = yield from _verified(client, trust, nonce)
    except Refused as e:
        raise Bad(e.reason, e.rule) from None
    if image is None:
        return Found(wait)
    return Found(wait, image, _way(told, image))


def _pause(client, told):
    """Milliseconds: what the server says, from 85 to 115 percent of it, which spreads a herd."""
    told = told if isinstance(told, int) and 0 < told <= LONGEST_S else USUAL_S
    told = min(told, client.config.poll_seconds or told)
    return told * (850 + int.from_bytes(client.port.random(2), "little") % 301)


def _way(told, image):
    """Where the image is. The check's words are hints: they count where they agree with what is signed."""
    url = told.get("url")
    if not isinstance(url, str) or told.get("sha256") != image.sha256:
        return "/api/blobs/" + image.sha256
    if not url.startswith("/"):
        raise Bad("download_error", "the image is offered by another host")
    return url


def _verified(client, trust, nonce):
    """The image that the order, the release and their keys agree on; None: up to date."""
    client.state = "order"
    config, facts, port = client.config, client.records.facts, client.port
    own = _device(client)
    now = port.now()
    now = max(now, config.built) if now else None
    for repo, name in own.wants(trust):
        path = "/image/" + name if repo == "image" else "/director/" + _escaped(config.device_id) + "/" + name
        body = yield from _file(client, path, ROOT_MAX)
        if name.endswith(".root.json"):
            own.take_root(repo, body)
            _kept(client, own, repo + ".root", body)
        else:
            own.take_delegations(body, now)
            _kept(client, own, "delegations", body)
        yield 0
    order = yield from _file(
        client, "/director/" + _escaped(config.device_id) + "/order.json?nonce=" + nonce, ORDER_MAX
    )
    role_path = "/image/" + str(trust.get("role")) + "." + config.product + ".json"
    role = yield from _file(client, role_path, ROLE_MAX)
    image = own.decide(order, role, nonce, now, lambda *words: _proofs(client, *words))
    known = (facts["order"], facts["role"], facts["log_size"])
    if known != (own.order_version, own.role_version, own.log_size):
        _remember(client, own)
    return image


def _proofs(client, leaves, since, size):
    """What the log answers for these entries. It is asked in the middle of the verification, so this one
    exchange is waited for."""
    path = "/api/log/compact?leaf=" + "&leaf=".join(leaves) + "&since=" + str(since) + "&size=" + str(size)
    asking = exchange(client, "GET", path, LOG_MAX)
    try:
        while True:
            time.sleep_ms(next(asking))
    except StopIteration as e:
        body = e.value
    if client.http.status != 200:
        raise refused_or_away(client.http, "the log does not prove what is ordered")
    return body


def _file(client, path, most):
    body = yield from exchange(client, "GET", path, most)
    if client.http.status != 200:
        raise refused_or_away(client.http, "a signed file is not there: " + path.split("?")[0])
    return body


def _device(client):
    """The trust that was reached; where a kept file is torn, the factory's."""
    config, facts, port = client.config, client.records.facts, client.port
    kept = [port.file(name) for name in ("image.root", "director.root", "delegations")]
    versions = (facts["delegation"], facts["order"], facts["role"], client.floor())
    who = (config.device_id, config.device_type, config.product)
    if facts["log_size"] < config.log_size:
        facts["log_size"], facts["log_root"] = config.log_size, config.log_root
    versions += (facts["log_size"], facts["log_root"])
    try:
        return Device(*who, kept[0] or config.image_root, kept[1] or config.director_root, kept[2], *versions)
    except Refused:
        port.log("what was kept of roots is torn: the factory's count")
        return Device(*who, config.image_root, config.director_root, None, *versions)


def _kept(client, own, name, body):
    try:
        client.port.keep(name, body)
    except OSError:
        raise Bad("install_error", "the file system cannot be written") from None
    _remember(client, own)


def _remember(client, own):
    client.records.facts.update(
        {
            "order": own.order_version,
            "role": own.role_version,
            "delegation": own.delegation_version,
            "log_size": own.log_size,
            "log_root": own.log_root,
        }
    )
    if not client.records.save("facts"):
        raise Bad("install_error", "the key-value store cannot be written")
