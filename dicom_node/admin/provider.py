"""The hospital's OpenID provider: what it says of itself, tokens for codes, and the proof that a token is its own.

OpenID Connect Core 1.0, the code flow (3.1) with PKCE (RFC 7636); discovery as in OpenID Connect Discovery 1.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from joserfc import jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from urllib3.exceptions import HTTPError
from urllib3.util import make_headers

from dicom_node.errors import ProviderAway, SignInRefused
from dicom_node.settings import Oidc

# Signed with a key that only the provider has: neither "none" nor what our own secret could sign.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
LEEWAY_S = 60
_TIMEOUT_S = 10.0
_KEEP_S = 3600.0
_LOOK_AGAIN_S = 30.0
_LONGEST = 1024 * 1024


class Provider:
    """Asks the provider; what it says of itself and its keys are kept for an hour."""

    def __init__(self, settings: Oidc) -> None:
        self._settings = settings
        self._lock = Lock()
        self._said: tuple[float, dict[str, Any]] = 0.0, {}
        self._keys: tuple[float, KeySet] | None = None

    def address(self, redirect_uri: str, state: str, nonce: str, verifier: str) -> str:
        """Where a browser goes to sign in.

        Raises
        ------
        ProviderAway
            When the provider does not say.
        """
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self._settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = str(self._discovered()["authorization_endpoint"])
        return endpoint + ("&" if "?" in endpoint else "?") + urlencode(asked)

    def way_out(self, back: str) -> str:
        """Where a browser goes to sign out there, too; empty when the provider has no such page."""
        endpoint = str(self._discovered().get("end_session_endpoint", ""))
        asked = {"client_id": self._settings.client_id, "post_logout_redirect_uri": back}
        return endpoint and endpoint + ("&" if "?" in endpoint else "?") + urlencode(asked)

    def claims(self, code: str, redirect_uri: str, nonce: str, verifier: str) -> dict[str, Any]:
        """Turn a code into what the provider says of who signed in.

        Raises
        ------
        SignInRefused
            When the code or the token is not what it should be.
        ProviderAway
            When the provider does not answer.
        """
        given = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "client_id": self._settings.client_id,
            "code_verifier": verifier,
        }
        answer = self._ask("POST", str(self._discovered()["token_endpoint"]), fields=given, headers=self._who(given))
        if not isinstance(answer.get("id_token"), str):
            raise SignInRefused(f"The sign-in service gave no token: {_word(answer.get('error'))}.")
        claims = self._proven(answer["id_token"], nonce)
        endpoint = self._discovered().get("userinfo_endpoint")
        if self._settings.groups_claim not in claims and endpoint and answer.get("access_token"):
            bearer = {"authorization": f"Bearer {answer['access_token']}"}
            more = self._ask("GET", str(endpoint), headers=bearer)
            if more.get("sub") != claims["sub"]:  # Core 5.3.4
                raise SignInRefused("The sign-in service told of somebody else.")
            claims = {**more, **claims}
        return claims

    def _proven(self, token: str, nonce: str) -> dict[str, Any]:
        """Check signature and claims of an ID token (Core 3.1.3.7)."""
        try:
            try:
                found = jwt.decode(token, self._key_set(), algorithms=ALGORITHMS)
            except (InvalidKeyIdError, ValueError):  # a key that is newer than what we know
                found = jwt.decode(token, self._key_set(again=True), algorithms=ALGORITHMS)
            wanted = jwt.JWTClaimsRegistry(
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self._settings.issuer},
                aud={"essential": True, "value": self._settings.client_id},
                sub={"essential": True},
                exp={"essential": True},
                iat={"essential": True},
                nonce={"essential": True, "value": nonce},
            )
            wanted.validate(found.claims)
        except ExpiredTokenError:
            raise SignInRefused("The sign-in is out of date: is this machine's clock right?") from None
        except InvalidClaimError as error:
            raise SignInRefused(f"The token is not for this sign-in: {_word(error.claim)} is another.") from None
        except (JoseError, ValueError) as error:
            raise SignInRefused(f"The token cannot be proven: {type(error).__name__}.") from None
        claims = dict(found.claims)
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", self._settings.client_id if not several else None) != self._settings.client_id:
            raise SignInRefused("The token is not for this sign-in: azp is another.")
        return claims

    def _discovered(self) -> dict[str, Any]:
        with self._lock:
            at, said = self._said
            if said and time.monotonic() - at < _KEEP_S:
                return said
        said = self._ask("GET", f"{self._settings.issuer.rstrip('/')}/.well-known/openid-configuration")
        if said.get("issuer") != self._settings.issuer:
            other = _word(said.get("issuer"))
            raise ProviderAway(f"{self._settings.issuer} calls itself {other}: oidc.issuer is wrong")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not self._settings.may_ask(str(said.get(name, ""))):
                raise ProviderAway(f"{self._settings.issuer} has no usable {name}")
        with self._lock:
            self._said = time.monotonic(), said
        return said

    def _key_set(self, *, again: bool = False) -> KeySet:
        with self._lock:
            kept = self._keys
        age = time.monotonic() - kept[0] if kept else _KEEP_S
        if kept and age < (_LOOK_AGAIN_S if again else _KEEP_S):
            return kept[1]
        told = self._ask("GET", str(self._discovered()["jwks_uri"]))
        try:
            keys = KeySet.import_key_set(told)  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise ProviderAway(f"{self._settings.issuer} gives keys that cannot be read") from error
        with self._lock:
            self._keys = time.monotonic(), keys
        return keys

    def _who(self, given: dict[str, str]) -> dict[str, str]:
        """Prove who we are to the token endpoint, in the way that the provider takes."""
        secret = self._settings.secret()
        if not secret:
            return {}
        methods: Sequence[str] = self._discovered().get("token_endpoint_auth_methods_supported", ())
        if methods and "client_secret_basic" not in methods:
            given["client_secret"] = secret
            return {}
        return dict(make_headers(basic_auth=f"{quote(self._settings.client_id, '')}:{quote(secret, '')}"))

    def _ask(
        self,
        method: str,
        url: str,
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        try:
            context = ssl.create_default_context(cafile=self._settings.ca)
            with urllib3.PoolManager(1, ssl_context=context, retries=False, timeout=_TIMEOUT_S) as pool:
                body = urlencode(fields) if fields else None
                kind = {"content-type": "application/x-www-form-urlencoded"} if fields else {}
                told = {"accept": "application/json", **kind, **(headers or {})}
                answer = pool.request(method, url, body=body, headers=told, redirect=False, preload_content=False)
                data = answer.read(_LONGEST)
                found = json.loads(data) if data else {}
        except (HTTPError, OSError, ValueError) as error:
            raise ProviderAway(f"the sign-in service does not answer: {type(error).__name__}") from error
        if not isinstance(found, dict) or (answer.status != 200 and "error" not in found):
            raise ProviderAway(f"the sign-in service answers with {answer.status}")
        return found


def _word(value: object) -> str:
    """Show what came from outside, as far as it is a word."""
    text = str(value)[:80]
    return text if text.isprintable() else "something unreadable"
