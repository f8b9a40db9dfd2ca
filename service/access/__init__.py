"""Who may call the service, and who may teach: keys, tokens, the pace of each source, and the record of admin acts."""

from service.access.audit import AuditLog
from service.access.callers import ANYBODY, SCOPES, AccessError, Caller, Scope, Verifier
from service.access.opening import check_exposure, open_access

__all__ = [
    "ANYBODY",
    "SCOPES",
    "AccessError",
    "AuditLog",
    "Caller",
    "Scope",
    "Verifier",
    "check_exposure",
    "open_access",
]
