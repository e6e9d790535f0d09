"""Kong's plugins that are not here, and what to do instead; those that are built in anyway."""

from collections.abc import Mapping

BUILT_IN: Mapping[str, str] = {
    "prometheus": "metrics are always there, at the gateway's own address",
    "opentelemetry": "spans are switched on for the whole gateway, not by a plugin",
}
# What Kong has besides, and what to do here instead; in any other name nothing is known at all.
ABSENT: Mapping[str, str] = {
    "rate-limiting-advanced": "use rate-limiting, or a sliding window in the native form",
    "response-ratelimiting": "there is no limit by what a backend's answer says",
    "oauth2": "tokens are not issued here; introspection and login are in the native form",
    "hmac-auth": "use jwt, key-auth or mutual TLS",
    "ldap-auth": "use introspection or forward auth of the native form",
    "session": "the native form's login keeps its own session",
    "acme": "certificates are files; an ACME client writes them",
    "proxy-cache-advanced": "use proxy-cache",
    "request-transformer-advanced": "use request-transformer",
    "pre-function": "Lua of a file is not run",
    "post-function": "Lua of a file is not run",
    "aws-lambda": "functions are called by services, not by the gateway",
    "azure-functions": "functions are called by services, not by the gateway",
    "grpc-gateway": "gRPC is passed through, not translated",
    "grpc-web": "gRPC-Web is not translated",
    "http-log": "file-log writes the lines to a file, for a shipper of logs to send on",
    "tcp-log": "file-log writes the lines to a file, for a shipper of logs to send on",
    "udp-log": "file-log writes the lines to a file, for a shipper of logs to send on",
    "syslog": "file-log writes the lines to a file, for a shipper of logs to send on",
    "loggly": "file-log writes the lines to a file, for a shipper of logs to send on",
    "statsd": "metrics are Prometheus's",
    "datadog": "metrics are Prometheus's",
    "zipkin": "spans are OpenTelemetry's",
    **dict.fromkeys(
        ("openid-connect", "oauth2-introspection", "saml", "upstream-oauth"),
        "that is Kong Enterprise's; the native form has the login, introspection and tokens of a key set",
    ),
    **dict.fromkeys(
        ("mtls-auth", "header-cert-auth", "tls-handshake-modifier", "tls-metadata-headers"),
        "clients' certificates are asked for by the native form's listeners",
    ),
    **dict.fromkeys(
        ("key-auth-enc", "vault-auth", "ldap-auth-advanced", "jwt-signer", "konnect-application-auth"),
        "that is Kong Enterprise's; use key-auth or jwt",
    ),
    **dict.fromkeys(
        ("request-validator", "oas-validation", "json-threat-protection", "xml-threat-protection"),
        "bodies are bounded by request-size-limiting, not looked into",
    ),
    **dict.fromkeys(
        ("canary", "route-by-header", "route-transformer-advanced", "forward-proxy", "upstream-timeout"),
        "that is Kong Enterprise's; the native form has weights, conditions and timeouts of routes",
    ),
    **dict.fromkeys(
        ("response-transformer-advanced", "exit-transformer", "jq", "degraphql", "mocking"),
        "that is Kong Enterprise's; use request-transformer, response-transformer or request-termination",
    ),
    **dict.fromkeys(
        ("opa", "injection-protection", "service-protection"), "the native form has forward_auth and limits"
    ),
    **dict.fromkeys(
        ("statsd-advanced", "kafka-log", "kafka-upstream", "confluent", "solace-log", "app-dynamics"),
        "metrics are Prometheus's, access logs JSON lines, spans OpenTelemetry's",
    ),
    **dict.fromkeys(
        (
            "ai-proxy",
            "ai-prompt-decorator",
            "ai-prompt-guard",
            "ai-prompt-template",
            "ai-request-transformer",
        ),
        "no model is asked by the gateway",
    ),
}
