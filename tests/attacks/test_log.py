"""Attackers who rewrite the log, or show each device another one."""

import json
from dataclasses import replace
from itertools import count

from skylift.testkit import hostile
from skylift.testkit.victims import Scene, Victim
from skylift.trust import keys

from .conftest import ROLLBACK, SIGNATURE, MakeVictim, ordered


def test_a_log_that_forks(scene: Scene, victim: Victim) -> None:
    """The attacker owns the server with every online key, and rewrites what it said before. Nothing that he
    orders is new: only the log could show it."""
    loot, versions = scene.loot(), count(1000)
    victim.recovers(order=False)  # an honest update: the device has pinned the log
    pinned = json.loads((victim.config.state_dir / "trust" / "log.json").read_text())
    scene.order(victim, "1.0.0")
    image = loot.released("1.0.0")
    ordered(victim, loot, image, version=next(versions))
    entry = loot.order_entry(victim, image)
    loot.log(entry, without=pinned["size"] - 1).shown_by(victim.proxy)
    assert "forks" in victim.refuses(SIGNATURE)

    def again() -> None:
        victim.proxy.honest()
        scene.order(victim, "1.0.0")
        ordered(victim, loot, image, version=next(versions))

    again()
    loot.log(loot.order_entry(victim, image), first=pinned["size"] - 2).shown_by(victim.proxy)
    assert "shrank" in victim.refuses(ROLLBACK)
    again()
    loot.log().shown_by(victim.proxy)  # goes on, but has nothing of this order
    assert "not in the log" in victim.refuses(SIGNATURE)
    again()
    stolen = replace(loot, director=keys.generate())
    stolen.log(loot.order_entry(victim, image)).shown_by(victim.proxy)
    assert "online key" in victim.refuses(SIGNATURE)
    again()
    for nonsense in (b"[]", b"{}", b'{"size": -1}', b"\xff", b"[" * 5000):
        victim.proxy.lie("^/api/log/checkpoint", hostile.instead(nonsense))
        victim.refuses(SIGNATURE)
        again()
    victim.proxy.lie("^/api/log/", hostile.withheld(404))
    victim.holds_out()
    kept = json.loads((victim.config.state_dir / "trust" / "log.json").read_text())
    assert kept == pinned
    again()  # the director's versions he has pushed up; the log is honest again
    victim.until(lambda: victim.version == "1.0.0" and victim.settled(), "what the honest log has")
    assert json.loads((victim.config.state_dir / "trust" / "log.json").read_text())["size"] > pinned["size"]


def test_two_devices_are_not_shown_different_logs_unseen(scene: Scene, make_victim: MakeVictim) -> None:
    """One device that has pinned nothing yet is shown a log of its own, and installs what it says. The last
    word of that update tells which log it was."""
    loot, lonely, other = scene.loot(), make_victim(), make_victim()
    for each in (lonely, other):
        scene.order(each)
    image = loot.released("1.1.0")
    ordered(lonely, loot, image)
    mine = loot.log(loot.order_entry(lonely, image), without=0)
    mine.shown_by(lonely.proxy)
    lonely.until(lambda: lonely.version == "1.1.0" and lonely.settled(), "what it was shown")
    other.recovers(order=False)
    seen = scene.client.get("/api/log/witnessed")["items"]
    theirs = [one for one in seen if one["device_id"] in (lonely.name, other.name)]
    strange = [(one["device_id"], one["size"], one["root"]) for one in theirs if not one["agrees"]]
    assert strange == [(lonely.name, mine.size, mine.root)]
    assert other.name in {one["device_id"] for one in seen if one["agrees"]}
    told = scene.client.get(f"/api/devices/{lonely.name}/timeline")["items"]
    assert [one["data"]["code"] for one in told if one["kind"] == "report_refused"] == ["split_view"]
    # And from now on that device is held to its own log: the honest one forks from it.
    lonely.proxy.honest()
    scene.order(lonely, "1.0.0")
    ordered(lonely, loot, loot.released("1.0.0"), version=1001)
    assert "forks" in lonely.refuses(SIGNATURE)


def test_a_device_whose_factory_pinned_the_log_never_goes_without(
    scene: Scene, make_victim: MakeVictim
) -> None:
    victim = make_victim(require_log=True)
    scene.order(victim)
    victim.proxy.lie("^/api/log/", hostile.withheld(404))
    victim.holds_out()
    victim.recovers(order=False)
