"""An OpenID provider over real HTTP that signs real tokens, and lies as a test tells it to."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "ainode", "s3cret:with/odd+characters"


class OpenIdProvider:
    """Signs in whoever is `person`, without asking.

    Attributes
    ----------
    person : dict
        Claims of whoever sits at the browser.
    change : callable
        What becomes of the claims of an ID token before it is signed.
    key : joserfc.jwk.RSAKey
        What it signs with; `published` is what it says that it signs with.
    """

    def __init__(self) -> None:
        self.person: dict[str, Any] = {"sub": "4711", "preferred_username": "Frieda.Hall", "groups": ["radiology"]}
        self.info: dict[str, Any] = {}
        self.change: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.key = RSAKey.generate_key(2048, {"kid": "1"})
        self.published = [self.key]
        self.algorithm = "RS256"
        self.forged: Callable[[dict[str, Any]], str] | None = None  # a token that it never signed
        self.codes: dict[str, dict[str, str]] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.get(self)

            def do_POST(self) -> None:
                provider.token(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path)
        if path.path == "/.well-known/openid-configuration":
            told = {name: f"{self.issuer}/{name}" for name in ("authorize", "token", "keys", "info", "out")}
            answer(
                request,
                {
                    "issuer": self.issuer,
                    "authorization_endpoint": told["authorize"],
                    "token_endpoint": told["token"],
                    "jwks_uri": told["keys"],
                    "userinfo_endpoint": told["info"],
                    "end_session_endpoint": told["out"],
                },
            )
        elif path.path == "/keys":
            answer(request, {"keys": [key.as_dict(private=False) for key in self.published]})
        elif path.path == "/info":
            assert request.headers["authorization"] == "Bearer access"
            answer(request, self.info)
        else:
            asked = {name: values[0] for name, values in parse_qs(path.query).items()}
            assert asked["response_type"] == "code"
            assert asked["client_id"] == CLIENT
            assert asked["code_challenge_method"] == "S256"
            code = uuid4().hex
            self.codes[code] = asked
            request.send_response(302)
            back = urlencode({"code": code, "state": asked["state"]})
            request.send_header("location", f"{asked['redirect_uri']}?{back}")
            request.end_headers()

    def token(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["content-length"])).decode()
        given = {name: values[0] for name, values in parse_qs(body).items()}
        asked = self.codes.pop(given["code"], None)
        who = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(given["code_verifier"].encode()).digest())
        right = (
            asked is not None
            and tuple(map(unquote, who.split(":"))) == (CLIENT, SECRET)
            and asked["redirect_uri"] == given["redirect_uri"]
            and asked["code_challenge"] == challenge.rstrip(b"=").decode()
        )
        if not right or asked is None:
            answer(request, {"error": "invalid_grant"}, 400)
            return
        now = int(time.time())
        base = {"iss": self.issuer, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = self.change({**base, **self.person})
        header = {"alg": self.algorithm, "kid": str(self.key.kid)}
        signed = jwt.encode(header, claims, self.key, algorithms=[self.algorithm])
        if self.forged is not None:
            signed = self.forged(claims)
        answer(request, {"access_token": "access", "token_type": "Bearer", "id_token": signed})


def answer(request: BaseHTTPRequestHandler, said: dict[str, Any], status: int = 200) -> None:
    data = json.dumps(said).encode()
    request.send_response(status)
    request.send_header("content-type", "application/json")
    request.send_header("content-length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
