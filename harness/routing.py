"""Random routes, splits, resolvers and intentions, and requests that are likely to hit them.

All chance comes from the generator that is handed in, so that a seed, or hypothesis, says everything. The names of
services go through `Names`: the same chance gives the same entries for another set of services.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

PATHS = (
    "/", "/a", "/api", "/api/", "/api/v1", "/api/v1/x", "/Api", "/API/v1", "/x/y", "/x/../api", "/a.b", "/axb",
    "//api", "/ap%69", "/api;v=1", "/x%2Fy", "/api/v12", "/v1", "/trunk", "/trunk/", "/trunk/leaf",
)  # fmt: skip
EXACT = ("/a", "/api", "/Api", "/x/y", "/a.b", "/trunk", "/x/../api", "/api/v1")
PREFIXES = ("/", "/a", "/api", "/api/", "/API", "/x", "/trunk", "/x/y")
REGEXES = ("/a.*", r"/(api|x)/[a-z]+[0-9]?", r"/a\.b", "/[^/]*", "(?i)/api.*", ".*1", "/trunk/?")
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS")
HEADERS = ("x-a", "X-B", "x-c", "host", ":authority", ":method", ":path")
VALUES = ("1", "yes", "no,yes", "abc", "ABC", "a b", "v1", "")
NEEDLES = ("1", "yes", "a", "abc", "v", "ABC")
VALUE_REGEXES = ("[0-9]+", "y.s", "a.*", "(?i)abc", ".*")
PARAMETERS = ("q", "v", "Q")
QUERY_VALUES = ("1", "one", "", "a=b", "o%6ee")
REWRITES = ("/", "/new", "/new/", "/a", "/api/v1", "new", "/q?x=1", "/r/../api")
MODIFIED = ("x-a", "x-b", "x-c", "X-Set", "x-add")
MODIFIERS = ("1", "yes", "a b", "%PROTOCOL%", "100%%", "%REQ(X-C)%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%")
SPANS = ("1s", "250ms", "0s", "1m30s", "15s")
RETRIES = ("5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx", "refused-stream", "unavailable")
PRESENT = ({"Present": True}, {"Present": True, "Invert": True})


@dataclass(frozen=True, slots=True)
class Request:
    """One request, as an app would send it."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """Return the target without its query."""
        return self.target.partition("?")[0]

    def lines(self, *more: str) -> bytes:
        """Return the head, and an empty body where the method may have one."""
        fields = [f"{name}: {value}" for name, value in self.headers]
        length = ["Content-Length: 0"] if self.method in {"POST", "PUT", "PATCH"} else []
        return "\r\n".join([f"{self.method} {self.target} HTTP/1.1", *fields, *length, *more, "", ""]).encode()


class Chance:
    """Draws of what entries are made of."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def one(self, choices: Sequence[Any]) -> Any:
        """Return one of them."""
        return choices[self.draw.randrange(len(choices))]

    def yes(self, percent: int) -> bool:
        """Return whether the dice say so."""
        return self.draw.randrange(100) < percent

    # --- matches ------------------------------------------------------------------------------------------------------

    def path_match(self, percent: int = 90) -> Json:
        """Return the path criterion of a route or of a permission, or none."""
        if not self.yes(percent):
            return {}
        field, choices = self.one((("PathExact", EXACT), ("PathPrefix", PREFIXES), ("PathRegex", REGEXES)))
        return {field: self.one(choices)}

    def value_match(self, *, name: str, kinds: Sequence[str], ignore_case: bool = False) -> Json:
        """Return a test of a header or of a query parameter."""
        kind = self.one(kinds)
        if kind == "Present":
            test: Json = {"Present": True}
        else:
            test = {kind: self.one(VALUE_REGEXES if kind == "Regex" else NEEDLES)}
            if ignore_case and kind != "Regex" and self.yes(30):
                test["IgnoreCase"] = True
        return {"Name": name, **test}

    def header_match(self, *, intention: bool = False) -> Json:
        """Return a test of a header. Intentions know more of them than routes."""
        more = ("Contains",) if intention else ()
        kinds = ("Present", "Exact", "Prefix", "Suffix", "Regex", *more)
        test = self.value_match(name=self.one(HEADERS), kinds=kinds, ignore_case=intention)
        if test["Name"] == ":method" and "Exact" in test:
            test["Exact"] = self.one(METHODS)
        return {**test, "Invert": True} if self.yes(25) else test

    def methods(self) -> Json:
        """Return the criterion of the method, or none."""
        return {"Methods": self.draw.sample(METHODS, self.draw.randrange(1, 4))} if self.yes(25) else {}

    def route_match(self) -> Json:
        """Return the `Match.HTTP` of a route."""
        match = {**self.path_match(), **self.methods()}
        if match.keys() & {"PathExact", "PathPrefix", "PathRegex"} and self.yes(25):
            match["CaseInsensitive"] = True
        if self.yes(35):
            match["Header"] = [self.header_match() for _ in range(self.draw.randrange(1, 3))]
        if self.yes(20):
            match["QueryParam"] = [self.value_match(name=self.one(PARAMETERS), kinds=("Present", "Exact", "Regex"))]
        return match

    # --- what is done -------------------------------------------------------------------------------------------------

    def modifiers(self) -> Json:
        """Return changes to headers. Add and Set are always there: nested splitters without one of them kill Consul."""
        pairs = [{self.one(MODIFIED): self.one(MODIFIERS) for _ in range(self.draw.randrange(1, 3))} for _ in range(2)]
        remove = [name.lower() for name in self.draw.sample(MODIFIED, self.draw.randrange(2))]
        return {"Add": pairs[0], "Set": pairs[1], **({"Remove": remove} if remove else {})}

    def modified(self, percent: int) -> Json:
        """Return the modifiers of one level, or none."""
        both = ("RequestHeaders", "ResponseHeaders")
        return {field: self.modifiers() for field in both if self.yes(percent)}

    def destination(self, places: Sequence[Json], *, rewrites: bool) -> Json:
        """Return the `Destination` of a route to one of these places."""
        found = {**self.one(places), **self.modified(30)}
        if rewrites and self.yes(40):
            found["PrefixRewrite"] = self.one(REWRITES)
        return found

    def timeouts(self) -> Json:
        """Return timeouts of a destination."""
        return {field: self.one((*SPANS, "-1s")) for field in ("RequestTimeout", "IdleTimeout") if self.yes(30)}

    def retries(self) -> Json:
        """Return the retry policy of a destination, or none."""
        found: Json = {}
        if self.yes(40):
            found["NumRetries"] = self.draw.randrange(4)
        if self.yes(20):
            found["RetryOnConnectFailure"] = True
        if self.yes(20):
            found["RetryOn"] = self.draw.sample(RETRIES, self.draw.randrange(1, 3))
        if self.yes(20):
            found["RetryOnStatusCodes"] = self.draw.sample((429, 500, 503, 504), self.draw.randrange(1, 3))
        return found

    def route(self, places: Sequence[Json]) -> Json:
        """Return a route to one of these places."""
        match = self.route_match()
        rewrites = bool(match.keys() & {"PathExact", "PathPrefix"})
        return {"Match": {"HTTP": match}, "Destination": self.destination(places, rewrites=rewrites)}

    # --- intentions ---------------------------------------------------------------------------------------------------

    def permission(self) -> Json:
        """Return one rule on HTTP."""
        http: Json = {**self.path_match(80), **self.methods()}
        if self.yes(30) or not http:
            http["Header"] = [self.header_match(intention=True) for _ in range(self.draw.randrange(1, 3))]
        return {"Action": "allow" if self.yes(65) else "deny", "HTTP": http}

    # --- requests -----------------------------------------------------------------------------------------------------

    def request(self, matches: Sequence[Mapping[str, Any]], host: str) -> Request:
        """Return a request that one of the matches takes, if nothing was changed on the way."""
        match = self.one(matches) if matches and self.yes(85) else {}
        fields = [("Host", host), *self._extra_headers()]
        for test in match.get("Header", ()):
            fields += self._header_for(test)
        query = [self._parameter_for(test) for test in match.get("QueryParam", ())]
        if self.yes(25):
            query.insert(self.draw.randrange(len(query) + 1), f"{self.one(PARAMETERS)}={self.one(QUERY_VALUES)}")
        method = self.one(match["Methods"]) if match.get("Methods") and self.yes(85) else self.one(("GET", *METHODS))
        target = self._path_for(match) + (f"?{'&'.join(query)}" if query else "")
        return Request(method, target, tuple(fields))

    def _extra_headers(self) -> list[tuple[str, str]]:
        count = self.one((0, 0, 1, 2))
        return [(self.one(("x-a", "X-B", "x-c")), self.one(VALUES)) for _ in range(count)]

    def _header_for(self, test: Mapping[str, Any]) -> list[tuple[str, str]]:
        name = test["Name"]
        if name.lower() == "host" or name.startswith(":") or not self.yes(85):
            return []
        value = next((str(test[kind]) for kind in ("Exact", "Prefix", "Suffix", "Contains") if kind in test), "")
        if test.get("Regex") or "Present" in test:
            value = self.one(("1", "yes", "abc"))
        if self.yes(20):
            value = self.one((value.upper(), f"{value}x", f"x{value}", f" {value} "))
        return [(name, value)]

    def _parameter_for(self, test: Mapping[str, Any]) -> str:
        value = test.get("Exact") or self.one(("1", "yes", "abc"))
        return str(self.one((f"{test['Name']}={value}", f"{test['Name']}={value}", test["Name"], f"{test['Name']}=")))

    def _path_for(self, match: Mapping[str, Any]) -> str:
        known = str(match.get("PathExact") or match.get("PathPrefix") or "")
        if not known or not self.yes(85):
            fitting = [path for path in PATHS if re.fullmatch(match.get("PathRegex", ".*"), path)]
            return str(self.one(fitting if fitting and self.yes(80) else PATHS))
        if match.get("CaseInsensitive") and self.yes(50):
            known = str(self.one((known.upper(), known.lower())))
        if "PathPrefix" in match and self.yes(60):
            return f"{known}{self.one(('/', 'x', '/x', '/../api', '/b/c', '%41'))}"
        return known if self.yes(90) else f"{known}{self.one(('/', 'x'))}"
