"""How a proxy process loads aiohttp and python-consul2: without what they load and no proxy uses.

There is one such process beside every instance of every service, so its memory is paid many times over. `load` is
called there before anything else imports the two; programs that are not proxies get them whole.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_FOR_AIOHTTP = {
    # It makes two contexts when it is imported, with all CA certificates of the machine: 2 MB. The catalog brings the
    # context of an https agent itself. These variables are OpenSSL's own.
    "SSL_CERT_FILE": os.devnull,
    "SSL_CERT_DIR": os.devnull,
    # The compiled half of its lists of callbacks needs the C++ library: 1 MB. The other half is as good here.
    "FROZENLIST_NO_EXTENSIONS": "1",
}


def load() -> None:
    """Load both libraries; once they are loaded, later imports find them."""
    with _imported_on_use("requests"):  # 4 MB, for python-consul2's blocking client, which the catalog replaces
        importlib.import_module("consul.base")
    with _environment(_FOR_AIOHTTP):
        importlib.import_module("aiohttp")


class _OnUse(ModuleType):
    """Stands for a module until somebody takes something from it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def _imported_on_use(name: str) -> Iterator[None]:
    """Let what is imported meanwhile hold a stand-in of a module. Nobody who imports it afterwards sees that."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = _OnUse(name)
    try:
        yield
    finally:
        del sys.modules[name]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables, and set them back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
