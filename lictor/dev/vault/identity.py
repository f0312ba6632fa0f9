"""Who logged in: an entity for each alias, which is a name at a login. Source: Vault's API, "Identity secrets engine".

An alias holds the metadata of its last login, so a token sees what a later login of the same alias brought.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lictor.dev.vault import fields
from lictor.dev.vault.answers import NOTHING, Ask, Failed, Json, Reply, keys_of, not_so
from lictor.dev.vault.routes import Call, Route, answer
from lictor.dev.vault.tokens import Token, new_id, stamp

_LOOKUP: fields.Kinds = {
    "id": fields.text,
    "name": fields.text,
    "alias_id": fields.text,
    "alias_name": fields.text,
    "alias_mount_accessor": fields.text,
}
_TEMPLATE = re.compile(r"\{\{\s*(.+?)\s*\}\}")
_OF_ALIAS = re.compile(r"identity\.entity\.aliases\.([^.]+)\.(?:metadata\.(.+)|(name|id))")


@dataclass(slots=True)
class Entity:
    """An entity and its only alias: nothing here merges two. Times in seconds since 1970."""

    accessor: str
    mount_path: str
    mount_type: str
    alias: str
    created: float
    updated: float
    metadata: dict[str, str]
    id: str = field(default_factory=new_id)
    alias_id: str = field(default_factory=new_id)
    name: str = field(default_factory=lambda: f"entity_{secrets.token_hex(4)}.root")

    def alias_row(self) -> Json:
        """Return the alias as it is told on its own."""
        return {
            "canonical_id": self.id,
            "creation_time": stamp(self.created),
            "custom_metadata": None,
            "id": self.alias_id,
            "last_update_time": stamp(self.updated),
            "local": False,
            "merged_from_canonical_ids": None,
            "metadata": self.metadata,
            **self.alias_info(),
        }

    def alias_info(self) -> Json:
        """Return where the alias is, and its name."""
        found = {"mount_accessor": self.accessor, "mount_path": self.mount_path, "mount_type": self.mount_type}
        return {**found, "name": self.alias}

    def row(self) -> Json:
        """Return the entity as it is told on its own."""
        return {
            "aliases": [self.alias_row()],
            "creation_time": stamp(self.created),
            "direct_group_ids": [],
            "disabled": False,
            "group_ids": [],
            "id": self.id,
            "inherited_group_ids": [],
            "last_update_time": stamp(self.created),
            "merged_entity_ids": None,
            "metadata": None,
            "name": self.name,
            "namespace_id": "root",
            "policies": [],
        }


class Identity:
    """identity/: what logins have made. Nothing is written by hand here."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.entities: dict[str, Entity] = {}  # by ID
        self._routes = (
            Route("entity/id/?", {"list": self._list}),
            Route("entity/name/?", {"list": self._names}),
            Route("entity/id/{id}", {"read": self._by_id}),
            Route("entity/name/{name}", {"read": self._by_name}),
            Route("entity-alias/id/?", {"list": self._aliases}),
            Route("entity-alias/id/{id}", {"read": self._alias}),
            Route("lookup/entity", {"update": self._lookup}, _LOOKUP),
        )

    def seen(self, accessor: str, path: str, kind: str, alias: str, metadata: Mapping[str, str]) -> str:
        """Note a login; return the ID of its entity."""
        now = self._clock()
        for entity in self.entities.values():
            if (entity.accessor, entity.alias) == (accessor, alias):
                entity.metadata, entity.updated = dict(metadata), now
                return entity.id
        entity = Entity(accessor, path, kind, alias, now, now, dict(metadata))
        self.entities[entity.id] = entity
        return entity.id

    def filled(self, template: str, token: Token, *, literal: str = "") -> str:
        """Return a text with what `{{identity...}}` means for a token; "" if it means nothing for this one.

        `literal`: signs that a value must not hold, since they would widen the pattern that it becomes a part of.
        """
        missing = False

        def value(found: re.Match[str]) -> str:
            nonlocal missing
            held = self._value(found[1], self.entities.get(token.entity))
            missing = missing or not held or any(sign in held for sign in literal)
            return held

        text = _TEMPLATE.sub(value, template)
        return "" if missing else text

    def _value(self, name: str, entity: Entity | None) -> str:
        if entity is None:
            return ""
        if name in {"identity.entity.id", "identity.entity.name"}:
            return entity.id if name.endswith("id") else entity.name
        found = _OF_ALIAS.fullmatch(name)
        if found is None or found[1] != entity.accessor:
            return ""
        if found[2]:
            return entity.metadata.get(found[2], "")
        return entity.alias if found[3] == "name" else entity.alias_id

    # --- pages ---

    def answer(self, ask: Ask, own: Token) -> Reply:
        """Answer a request under identity/."""
        return answer(self._routes, ask, ask.path.removeprefix("identity/"), own)

    def _list(self, _: Call) -> Reply:
        info = {
            one.id: {"aliases": [{"id": one.alias_id, **one.alias_info()}], "name": one.name}
            for one in self.entities.values()
        }
        return keys_of(list(info), info)

    def _names(self, _: Call) -> Reply:
        return keys_of([one.name for one in self.entities.values()])

    def _by_id(self, call: Call) -> Reply:
        return _told(self.entities.get(call.names["id"]))

    def _by_name(self, call: Call) -> Reply:
        return _told(next((one for one in self.entities.values() if one.name == call.names["name"]), None))

    def _alias(self, call: Call) -> Reply:
        found = next((one for one in self.entities.values() if one.alias_id == call.names["id"]), None)
        if found is None:
            raise Failed(404)
        return Reply({**found.alias_row(), "namespace_id": "root"})

    def _aliases(self, _: Call) -> Reply:
        shown = ("canonical_id", "custom_metadata", "local", "metadata", "mount_accessor", "mount_path", "mount_type")
        info = {}
        for one in self.entities.values():
            row = one.alias_row()
            info[one.alias_id] = {name: row[name] for name in (*shown, "name")}
        return keys_of(list(info), info)

    def _lookup(self, call: Call) -> Reply:
        given = call.given
        if not set(given) - {"alias_name", "alias_mount_accessor"} <= {"id", "name"}:
            raise not_so("identity/lookup/entity by alias_id")
        if not given:
            raise Failed(400, "query parameter not supplied")
        for one in self.entities.values():
            by_alias = (given.get("alias_name"), given.get("alias_mount_accessor")) == (one.alias, one.accessor)
            if by_alias or given.get("id") == one.id or given.get("name") == one.name:
                return Reply(one.row())
        return NOTHING

    # --- keeping it over a restart ---

    def dump(self) -> list[Json]:
        """Return everything as JSON."""
        return [asdict(entity) for entity in self.entities.values()]

    def load(self, kept: list[dict[str, Any]]) -> None:
        """Take what `dump` gave."""
        self.entities = {row["id"]: Entity(**row) for row in kept}


def _told(entity: Entity | None) -> Reply:
    if entity is None:
        raise Failed(404)
    return Reply(entity.row())
