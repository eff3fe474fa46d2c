"""User accounts, passwords and tokens as a hostkit plugin."""

from ._config import AuthConfig
from ._messages import AuthRequest, AuthResponse
from ._plugin import UserAuth

__all__ = ["AuthConfig", "AuthRequest", "AuthResponse", "UserAuth"]
