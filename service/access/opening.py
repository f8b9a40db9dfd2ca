"""Access as the settings say."""

from __future__ import annotations

import ipaddress
import logging
from pathlib import Path

from service.access.callers import AccessError, Verifier
from service.access.keys import Keys
from service.settings import AccessSettings

log = logging.getLogger(__name__)


def open_access(settings: AccessSettings, data: Path) -> Verifier | None:
    """Return who checks credentials, None where nobody does. Files are looked for in the data directory.

    Raises AccessError where they can't be read, or a setting is missing.
    """
    match settings.mode:
        case "none":
            return None
        case "keys":
            keys = Keys(data / settings.keys)
            if not len(keys):
                log.warning("access.no_keys: nobody may call yet; `everlearn keys add NAME --scope SCOPE` makes a key")
            return keys
        case "jwt":
            from service.access.tokens import Tokens

            for name in ("issuer", "audience"):
                if not getattr(settings, name):
                    raise AccessError(f'access.{name}: missing; access.mode = "jwt" needs it')
            return Tokens(data / settings.jwks, issuer=settings.issuer, audience=settings.audience)


def check_exposure(settings: AccessSettings, address: str) -> None:
    """Raise AccessError where others than this machine's users could teach the model, and nobody has said that they may."""
    if settings.mode == "none" and not settings.anonymous and not ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        raise AccessError(
            f"on {address} everybody who reaches this machine could teach the model and roll it back: set access.mode to"
            ' "keys" (`everlearn keys add NAME --scope predict`) or "jwt", or say access.anonymous = true'
        )
