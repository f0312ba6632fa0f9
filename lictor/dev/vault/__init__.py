"""The part of Vault's HTTP API that the mesh uses, in memory: tokens, policies, wrapping, AppRole, PKI.

request ─▶ app (JSON, tokens, wrapping) ─▶ Vault.answer ─▶ policies: may this token? ─▶ sys/ auth/ or a PKI mount
"""

from lictor.dev.vault.app import vault_app
from lictor.dev.vault.core import Vault

__all__ = ["Vault", "vault_app"]
