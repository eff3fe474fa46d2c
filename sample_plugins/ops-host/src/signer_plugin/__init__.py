"""Signs texts with a key that is in its configuration and nowhere else: in no log, error or answer."""

from __future__ import annotations

import hashlib
import hmac

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from hostkit import ExecutionContext, HealthStatus, Plugin, Status


class SignerConfig(BaseModel):
    """What the operator must set: the key; and may: what signatures begin with."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr = Field(min_length=16)
    prefix: str = "v1"


class SignerRequest(BaseModel):
    """A text to sign."""

    text: str


class SignerResponse(BaseModel):
    """Its signature."""

    signature: str


class Signer(Plugin[SignerRequest, SignerResponse]):
    """HMAC-SHA256 over the text."""

    def __init__(self, config: SignerConfig) -> None:
        self._config = config
        self._signed = 0

    def execute(self, ctx: ExecutionContext, request: SignerRequest) -> SignerResponse:
        key = self._config.api_key.get_secret_value().encode()
        self._signed += 1
        if self._signed % 500 == 0:
            ctx.logger.info("%d texts signed since the start", self._signed)
        return SignerResponse(signature=f"{self._config.prefix}={hmac.new(key, request.text.encode(), hashlib.sha256).hexdigest()}")

    def health(self) -> HealthStatus:
        return HealthStatus(Status.HEALTHY, f"{self._signed} texts signed")
