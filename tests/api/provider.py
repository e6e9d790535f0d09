"""A real OpenID provider, of Authlib's own server parts: codes with PKCE, ID tokens, published keys.

It asks nobody: whoever comes is `person`. What a bad provider would say instead is put into `lies`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask, jsonify, request
from joserfc import jwt
from joserfc.jwk import ECKey
from werkzeug.serving import make_server

CLIENT, SECRET = "skylift", "a secret of two servers"


class Client(ClientMixin):  # type: ignore[misc] # Authlib ships no types
    """The one client it knows."""

    id_token_signed_response_alg = "ES256"

    def __init__(self, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri

    def get_client_id(self) -> str:
        return CLIENT

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, uri: str) -> bool:
        return uri == self.redirect_uri

    def check_client_secret(self, secret: str) -> bool:
        return secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, kind: str) -> bool:
        return kind == "code"

    def check_grant_type(self, kind: str) -> bool:
        return kind == "authorization_code"


@dataclass
class Code(AuthorizationCodeMixin):  # type: ignore[misc] # the same
    code: str
    redirect_uri: str
    scope: str
    nonce: str
    person: dict[str, Any]
    code_challenge: str
    code_challenge_method: str
    auth_time: float = field(default_factory=time.time)

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(self.auth_time)

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass
class Provider:
    """Who signs in, what it says of them, and what it lies."""

    issuer: str = ""
    person: dict[str, Any] = field(default_factory=dict)
    lies: dict[str, Any] = field(default_factory=dict)
    signs_with: ECKey = field(default_factory=lambda: ECKey.generate_key("P-256", {"kid": "1", "use": "sig"}))
    shows: list[ECKey] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def provider(redirect_uri: str) -> Iterator[Provider]:
    found = Provider()
    found.shows = [found.signs_with]
    app = Flask("provider")
    codes: dict[str, Code] = {}
    client = Client(redirect_uri)
    server = AuthorizationServer(app, lambda name: client if name == CLIENT else None, lambda *said: None)

    class Grant(AuthorizationCodeGrant):  # type: ignore[misc] # the same
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

        def save_authorization_code(self, code: str, asked: Any) -> None:
            said = asked.payload.data
            codes[code] = Code(code, said["redirect_uri"], said["scope"], said["nonce"], asked.user,
                               said["code_challenge"], said["code_challenge_method"])  # fmt: skip

        def query_authorization_code(self, code: str, client: Any) -> Code | None:
            return codes.get(code)

        def delete_authorization_code(self, code: Code) -> None:
            del codes[code.code]

        def authenticate_user(self, code: Code) -> dict[str, Any]:
            return code.person

    class Tokens(OpenIDCode):  # type: ignore[misc] # the same
        def exists_nonce(self, nonce: str, asked: Any) -> bool:
            return any(code.nonce == nonce for code in codes.values())

        def resolve_client_private_key(self, client: Any) -> ECKey:
            return found.signs_with

        def get_client_claims(self, client: Any) -> dict[str, Any]:
            return {"iss": found.issuer, "aud": [CLIENT]}

        def get_encode_header(self, client: Any) -> dict[str, str]:
            return {"alg": "ES256", "kid": "1"}

        def generate_user_info(self, user: dict[str, Any], scope: str) -> UserInfo:
            return UserInfo(**user)

        def encode_id_token(self, token: Any, asked: Any) -> str:
            made: str = super().encode_id_token(token, asked)
            if not found.lies:
                return made
            claims = jwt.decode(made, found.signs_with, algorithms=["ES256"]).claims | found.lies
            return jwt.encode(self.get_encode_header(None), claims, found.signs_with)

    server.register_grant(Grant, [Tokens(require_nonce=True), CodeChallenge(required=True)])

    @app.get("/.well-known/openid-configuration")
    def configuration() -> Any:
        found.asked.append("configuration")
        return jsonify(
            issuer=found.issuer,
            authorization_endpoint=f"{found.issuer}/authorize",
            token_endpoint=f"{found.issuer}/token",
            jwks_uri=f"{found.issuer}/keys",
        )

    @app.get("/keys")
    def keys() -> Any:
        return jsonify(keys=[key.as_dict(private=False) for key in found.shows])

    @app.get("/authorize")
    def authorize() -> Any:
        try:
            grant = server.get_consent_grant(end_user=found.person)
        except OAuth2Error as error:
            return jsonify(dict(error.get_body())), 400
        return server.create_authorization_response(grant=grant, grant_user=found.person or None)

    @app.post("/token")
    def token() -> Any:
        found.asked.append(request.form["grant_type"])
        return server.create_token_response()

    http = make_server("127.0.0.1", 0, app, threaded=True)
    found.issuer = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
