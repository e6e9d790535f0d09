"""`--help` teaches by example: a line to copy for every command whose own words have none.

The lines are checked against the commands themselves (`tests/cli/test_teaching.py`): an option that was
renamed, or an argument too few, is found.
"""

import inspect
from collections.abc import Mapping

import typer

EXAMPLES: Mapping[str, str] = {
    "serve": "skylift serve --data /var/lib/skylift --port 8080",
    "demo": "skylift demo --devices 24",
    "simulate": "skylift simulate --devices 1000 --speed 20 --phases 1,10,100",
    "release upload": "skylift release upload sensor/2.4.0 build/2.4.0.bin --device-type sensor-v2 --seal",
    "release delete": "skylift release delete sensor/2.4.0 --yes",
    "release sign": "skylift release sign sensor/2.4.0 --key skylift-keys/keys/release-sensor-1.pem",
    "release verify": "skylift release verify sensor/2.4.0 build/2.4.0.bin",
    "release sbom": "skylift release sbom sensor/2.4.0 bom.json",
    "release list": "skylift release list --product sensor",
    "release show": "skylift release show sensor/2.4.0",
    "deploy status": "skylift deploy status dep_01jb --wait --timeout 2h",
    "deploy explain": "skylift deploy explain dep_01jb",
    "deploy audit": "skylift deploy audit dep_01jb",
    "deploy list": "skylift deploy list --status running",
    "deploy pause": "skylift deploy pause dep_01jb --reason 'the support desk is closed'",
    "deploy resume": "skylift deploy resume dep_01jb --without label.hw=rev-b",
    "deploy promote": "skylift deploy promote dep_01jb",
    "deploy abort": "skylift deploy abort dep_01jb --reason 'wrong release' --yes",
    "deploy delete": "skylift deploy delete dep_01jb --yes",
    "deploy retry": "skylift deploy retry dep_01jb --device kitchen-17",
    "deploy rollback": "skylift deploy rollback dep_01jb --only label.hw=rev-b --yes",
    "device list": "skylift device list --type sensor-v2 --version 2.3.0",
    "device show": "skylift device show kitchen-17",
    "device timeline": "skylift device timeline kitchen-17 --limit 20",
    "device decommission": "skylift device decommission kitchen-17 --yes",
    "device revoke": "skylift device revoke kitchen-17 --yes",
    "device claims": "skylift device claims",
    "device authorities": "skylift device authorities --rotate --yes",
    "group create": "skylift group create eu --query 'label.region = eu'",
    "group list": "skylift group list",
    "group show": "skylift group show eu",
    "group add": "skylift group add lab kitchen-17 kitchen-18",
    "group remove": "skylift group remove lab kitchen-17",
    "group delete": "skylift group delete lab --yes",
    "trust init": "skylift trust init --product sensor --keys desk",
    "trust status": "skylift trust status",
    "trust sign": "skylift trust sign sensor --key skylift-keys/keys/release-sensor-2.pem",
    "trust export": "skylift trust export --linux device-files",
    "trust rotate": "skylift trust rotate sensor --remove 4be1",
    "trust renew": "skylift trust renew sensor",
    "trust revoke": "skylift trust revoke sensor/2.4.0 --reason 'it forgets its network'",
    "trust publish": "skylift trust publish round.json",
    "trust adopt": "skylift trust adopt release-sensor-1 'hsm:2?label=skylift'",
    "trust log show": "skylift trust log show --last 20",
    "trust log save": "skylift trust log save log.jsonl",
    "trust log verify": "skylift trust log verify --file log.jsonl",
    "delta make": "skylift delta make 2.3.0.bin 2.4.0.bin patch",
    "delta apply": "skylift delta apply 2.3.0.bin patch rebuilt.bin",
    "delta inspect": "skylift delta inspect patch --base 2.3.0.bin",
    "delta compare": "skylift delta compare 2.3.0.bin 2.4.0.bin",
    "gateway check": "skylift gateway check gateway.yaml --strict",
    "gateway explain": "skylift gateway explain gateway.yaml --request 'GET /api/users'",
    "gateway test": "skylift gateway test rows.yaml gateway.yaml",
    "gateway run": "skylift gateway run gateway.yaml --listen 127.0.0.1:8000",
    "gateway diff": "skylift gateway diff old.yaml new.yaml",
    "gateway convert": "skylift gateway convert kong.yaml --to traefik",
    "user list": "skylift user list",
    "user role": "skylift user role olga viewer",
    "user password": "skylift user password olga",
    "user disable": "skylift user disable olga --yes",
    "user enable": "skylift user enable olga",
    "channel list": "skylift channel list",
    "channel test": "skylift channel test ops",
    "channel log": "skylift channel log ops --state given_up",
    "channel replay": "skylift channel replay 17",
    "channel renew": "skylift channel renew ci",
    "channel disable": "skylift channel disable ci",
    "channel enable": "skylift channel enable ci",
    "channel remove": "skylift channel remove ci --yes",
    "agent run": "skylift agent run --config /etc/skylift/agent.toml",
}


def teach(app: typer.Typer, path: str = "") -> None:
    """Put the examples behind what the commands say of themselves."""
    for command in app.registered_commands:
        callback = command.callback
        name = command.name or (callback.__name__ if callback is not None else "")
        example = EXAMPLES.get(f"{path} {name}".strip())
        if example is not None and callback is not None:
            command.help = f"{inspect.cleandoc(callback.__doc__ or '')}\n\n{example}"
    for group in app.registered_groups:
        if group.typer_instance is not None:
            teach(group.typer_instance, f"{path} {group.name}".strip())
