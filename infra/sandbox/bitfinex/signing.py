"""Who may ask: a key, a signature over path, nonce and body, and a nonce that only ever grows."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.sandbox.bitfinex.refusals import AUTHENTICATION, NONCE, Refusal
from infra.sandbox.protocol.signing import Credentials

_LARGEST_NONCE = 9_007_199_254_740_991


def signature(secret: str, payload: str) -> str:
    """Return HMAC-SHA384 of a payload in hexadecimal."""
    return hmac.digest(secret.encode(), payload.encode(), "sha384").hex()


@dataclass(slots=True)
class Doorkeeper:
    """Lets in who signs with the one key there is; REST and WebSocket share the key's nonce."""

    credentials: Credentials
    # The last nonce of each key.
    nonces: dict[str, int] = field(default_factory=dict)
    # How many were let in by this process: a state that was saved before the last of them knows an older nonce.
    admitted: int = 0

    def admit_request(self, headers: Mapping[str, str], path: str, body: str) -> None:
        """
        Let a REST request in; `path` begins with `/v2/`.

        Raises:
            Refusal: The key, the signature or the nonce is wrong.
        """
        nonce = headers.get("bfx-nonce", "")
        self._admit(headers.get("bfx-apikey"), headers.get("bfx-signature"), nonce, f"/api{path}{nonce}{body}")

    def admit_socket(self, message: Mapping[str, object]) -> None:
        """
        Let a connection in by what it says of itself.

        Raises:
            Refusal: The key, the signature or the nonce is wrong.
        """
        key, signed, payload = message.get("apiKey"), message.get("authSig"), message.get("authPayload")
        nonce = str(message.get("authNonce"))
        if not isinstance(payload, str) or payload != f"AUTH{nonce}":
            raise Refusal(AUTHENTICATION, "apikey: digest invalid")
        self._admit(key, signed, nonce, payload)

    def _admit(self, key: object, signed: object, nonce: str, payload: str) -> None:
        if key != self.credentials.api_key:
            raise Refusal(AUTHENTICATION, "apikey: invalid")
        wanted = signature(self.credentials.api_secret, payload)
        if not isinstance(signed, str) or not hmac.compare_digest(wanted.encode(), signed.encode()):
            raise Refusal(AUTHENTICATION, "apikey: digest invalid")
        if not nonce.isascii() or not nonce.isdigit() or len(nonce) > len(str(_LARGEST_NONCE)):
            raise Refusal(NONCE, "nonce: invalid")
        if int(nonce) <= self.nonces.get(self.credentials.api_key, 0):
            raise Refusal(NONCE, "nonce: small")
        self.nonces[self.credentials.api_key] = int(nonce)
        self.admitted += 1
