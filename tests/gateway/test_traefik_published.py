"""Traefik's files as people have them: names in any case, its own pages, TLS options, others' resources."""

import pytest

from skylift.gateway.decision import Decision, World
from skylift.gateway.errors import Refused
from skylift.gateway.loading import loads
from skylift.gateway.match import decide
from skylift.gateway.model import Destination, Gateway
from skylift.gateway.policies import ResponseTransform, Retry, SizeLimit
from skylift.gateway.read import read_documents
from skylift.gateway.request import parse

SERVICE = "services: {s: {loadBalancer: {servers: [{url: 'http://a'}]}}}"


def read(text: str) -> Gateway:
    return read_documents(loads(text, "traefik.yaml"))


def with_middleware(text: str, router: str = "") -> Gateway:
    routers = f"routers: {{r: {{rule: 'PathPrefix(`/`)', service: s, middlewares: [m]{router}}}}}"
    return read(f"http: {{{SERVICE}, {routers}, middlewares: {{m: {{{text}}}}}}}")


def refusal(text: str) -> str:
    with pytest.raises(Refused) as refused:
        read(text)
    return " / ".join(map(str, refused.value.problems))


def seen(gateway: Gateway, request: str, listener: str = "") -> Decision:
    return decide(gateway, parse(request), World(now=0.0), {}, listener)


def test_names_of_fields_are_read_in_any_case() -> None:
    gateway = read("""
        http:
          routers:
            R: {rule: 'Host(`a.test`)', entrypoints: [web], Service: S, MiddleWares: [limit]}
          services: {S: {loadbalancer: {passhostheader: false, servers: [{URL: 'http://a:81'}]}}}
          middlewares: {limit: {ratelimit: {Average: 5, sourcecriterion: {requestheadername: X-Who}}}}
    """)
    (route,) = gateway.routes
    assert route.listeners == ("web",)
    assert route.to == (Destination("S"),)
    assert seen(gateway, "GET http://a.test/").sent.host == "a:81"  # type: ignore[union-attr]  # it is sent
    assert "did you mean 'entryPoints'" in refusal(
        f"http: {{{SERVICE}, routers: {{r: {{rule: 'Path(`/`)', service: s, entrypoint: [web]}}}}}}"
    )


@pytest.mark.parametrize(("service", "status"), [("noop@internal", 418), ("ping@internal", 200)])
def test_pages_of_its_own_that_need_no_dashboard_are_there(service: str, status: int) -> None:
    gateway = read(f"http: {{routers: {{r: {{rule: 'Path(`/x`)', service: {service}}}}}}}")
    reply = seen(gateway, "GET /x").reply
    assert reply is not None
    assert reply.status == status


@pytest.mark.parametrize(
    ("http", "says"),
    [
        (
            "routers: {r: {rule: 'Path(`/`)', service: api@internal}}",
            "the gateway's are at its --admin address",
        ),
        (
            "routers: {r: {rule: 'Path(`/`)', service: web@docker}}",
            "only files are read, nothing of docker's",
        ),
        (
            f"{SERVICE}, routers: {{r: {{rule: 'Path(`/`)', service: s, middlewares: [auth@docker]}}}}",
            "nothing of docker's",
        ),
        (f"{SERVICE}, routers: {{r: {{rule: 'Host(`{{{{ .Name }}}}`)', service: s}}}}", "of templates only"),
        ("middlewares: {m: {headers: {sslRedirect: true}}}", "redirect by redirectScheme"),
        ("middlewares: {m: {headers: {allowedHosts: [a]}}}", "hosts are matched by rules"),
        (
            "middlewares: {m: {buffering: {retryExpression: 'ResponseCode() == 502'}}}",
            "only IsNetworkError()",
        ),
    ],
)
def test_what_is_not_here_is_said_by_name(http: str, says: str) -> None:
    assert says in refusal(f"http: {{{http}}}")


@pytest.mark.parametrize(
    ("more", "router", "said"),
    [
        ("", "", False),
        ("", ", tls: {}", True),
        (", forceSTSHeader: true", "", True),
        (", sslProxyHeaders: {X-Forwarded-Proto: https}, hostsProxyHeaders: [X-Forwarded-Host]", "", True),
    ],
)
def test_strict_transport_is_said_over_tls_or_where_it_is_forced(more: str, router: str, said: bool) -> None:
    gateway = with_middleware(f"headers: {{stsSeconds: 60, frameDeny: true{more}}}", router)
    edits = [
        edit.name
        for step in gateway.routes[0].steps
        if isinstance(step.policy, ResponseTransform)
        for edit in step.policy.edits
    ]
    assert ("Strict-Transport-Security" in edits) is said
    assert "X-Frame-Options" in edits


def test_a_retry_of_buffering_is_a_retry() -> None:
    gateway = with_middleware(
        "buffering: {maxRequestBodyBytes: 9, retryExpression: 'IsNetworkError() && Attempts() < 3'}"
    )
    assert [step.policy for step in gateway.routes[0].steps if isinstance(step.policy, Retry)] == [Retry(2)]
    assert any(isinstance(step.policy, SizeLimit) for step in gateway.routes[0].steps)


def test_a_slash_that_is_not_forced_is_there_all_the_same_and_that_is_said() -> None:
    gateway = with_middleware("stripPrefix: {prefixes: [/a], forceSlash: false}")
    sent = seen(gateway, "GET /ab").sent
    assert sent is not None
    assert sent.path == "/b"
    assert [note.code for note in gateway.notes] == ["always_a_slash"]


# --- entry points and TLS ------------------------------------------------------------------------------

POINTS = f"""
    entryPoints:
      web: {{address: ':80', http: {{redirections: {{entryPoint: {{to: websecure, scheme: https}}}}}}}}
      websecure: {{address: ':443', http: {{tls: {{}}, middlewares: [early@file]}}}}
      inside: {{address: ':8080'}}
    http:
      {SERVICE}
      routers:
        r: {{rule: 'PathPrefix(`/`)', service: s, tls: {{}}}}
        plain: {{rule: 'PathPrefix(`/`)', service: s, middlewares: [late]}}
      middlewares: {{early: {{addPrefix: {{prefix: /early}}}}, late: {{addPrefix: {{prefix: /late}}}}}}
"""


def test_an_entry_point_sends_everybody_to_another() -> None:
    gateway = read(POINTS)
    moved = seen(gateway, "POST http://a.test/x?y=1", "web").reply
    assert moved is not None
    assert (moved.status, dict(moved.headers)["Location"]) == (308, "https://a.test/x?y=1")
    stays = seen(gateway, "GET http://a.test:8080/x", "inside").sent
    assert stays is not None
    assert stays.path == "/late/x"


def test_middlewares_of_an_entry_point_come_before_the_routers_own() -> None:
    gateway = read(POINTS)
    sent = seen(gateway, "GET https://a.test/x", "websecure").sent
    assert sent is not None
    assert sent.path == "/early/x"
    assert len({route.id for route in gateway.routes}) == len(gateway.routes)


def tls(options: str, routers: str, more: str = "") -> str:
    return f"tls: {{options: {{{options}}}{more}}}\nhttp: {{{SERVICE}, routers: {{{routers}}}}}"


ONE = "a: {rule: 'Host(`a`)', service: s, tls: {options: strict}, entryPoints: [websecure]}"
OTHER = "b: {rule: 'Host(`b`)', service: s, tls: {}, entryPoints: [websecure]}"
CLIENTS = "clientAuth: {caFiles: [/ca.pem], clientAuthType: %s}"


def test_options_and_certificates_are_the_listeners() -> None:
    strict = f"strict: {{minVersion: VersionTLS13, {CLIENTS % 'RequireAndVerifyClientCert'}}}"
    more = ", certificates: [{certFile: a.crt, keyFile: a.key}, {certFile: b.crt, keyFile: b.key}]"
    more += ", stores: {default: {defaultCertificate: {certFile: d.crt, keyFile: d.key}}}"
    (listener,) = read(tls(strict, ONE, more)).listeners
    assert (listener.oldest_tls, listener.client_ca, listener.client_optional) == ("1.3", "/ca.pem", False)
    assert (listener.certificate, listener.further) == ("d.crt", (("a.crt", "a.key"), ("b.crt", "b.key")))
    given = CLIENTS % "VerifyClientCertIfGiven"
    (listener,) = read(tls(f"default: {{{given}}}", OTHER)).listeners
    assert (listener.client_ca, listener.client_optional, listener.oldest_tls) == ("/ca.pem", True, "1.2")


@pytest.mark.parametrize(
    ("options", "routers", "says"),
    [
        ("strict: {}", f"{ONE}, {OTHER}", "one entry point has one set of options"),
        ("strct: {}", ONE, "there are no TLS options of this name (did you mean 'strct'?)"),
        (f"default: {{{CLIENTS % 'RequireAnyClientCert'}}}", OTHER, "nobody verifies"),
        ("default: {clientAuth: {clientAuthType: RequireAndVerifyClientCert}}", OTHER, "one file"),
        ("default: {minVersion: TLS12}", OTHER, "VersionTLS12"),
        ("default: {sslProtocols: [TLSv1.2]}", OTHER, "unknown field"),
    ],
)
def test_options_that_cannot_be_kept_are_refused(options: str, routers: str, says: str) -> None:
    assert says in refusal(tls(options, routers))


# --- resources -----------------------------------------------------------------------------------------

BESIDE = """
apiVersion: traefik.io/v1alpha1
kind: IngressRoute
metadata: {name: shop, namespace: prod}
spec:
  entryPoints: [websecure]
  routes: [{match: PathPrefix(`/`), kind: Rule, services: [{name: web, port: http}]}]
  tls: {options: {name: strict, namespace: prod}}
---
apiVersion: traefik.io/v1alpha1
kind: TLSOption
metadata: {name: strict, namespace: prod}
spec: {minVersion: VersionTLS13}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: prod}
spec: {ports: [{name: http, port: 8081, targetPort: 80}], selector: {app: web}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: prod}
spec: {replicas: 2}
"""


def test_resources_of_others_are_passed_over_and_said_and_services_name_their_ports() -> None:
    gateway = read(BESIDE)
    (target,) = gateway.upstreams["prod/web:8081"].targets
    assert (target.host, target.port) == ("web.prod", 8081)
    assert gateway.listeners[0].oldest_tls == "1.3"
    said = [note.sentence for note in gateway.notes if note.code == "others_resource"]
    assert said == [
        "Service of v1 is not the gateway's: passed over",
        "Deployment of apps/v1 is not the gateway's: passed over",
    ]


def test_routes_in_other_words_are_refused_by_name() -> None:
    ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: i}\nspec: {}\n"
    assert "write it as an IngressRoute" in refusal(ingress)
