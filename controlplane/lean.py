"""How a proxy process loads aiohttp and python-consul2: without what they load and no proxy uses.

There is one such process beside every instance of every service, so its memory is paid many times over. `load` is
called there before anything else imports the two; programs that are not proxies get them whole.
"""

from __future__ import annotations

import importlib
import mimetypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
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


# What aiohttp imports for cases that do not come up between a proxy and its agent, and what it takes out of each.
_SELDOM = {
    "urllib.request": ("getproxies", "proxy_bypass"),  # for proxies in the environment; brings http.client: 0.4 MB
    "email.policy": ("HTTP",),  # for parameters of a content type; brings a parser for addresses: 0.5 MB
    "html": ("escape",),  # for pages about errors; brings all names of characters: 0.3 MB
}


def load() -> None:
    """Load both libraries; once they are loaded, later imports find them."""
    with _imported_on_use("requests"):  # 4 MB, for python-consul2's blocking client, which the catalog replaces
        importlib.import_module("consul.base")
    with _environment(_FOR_AIOHTTP), _no_types_of_files(), ExitStack() as later:
        for name, taken in _SELDOM.items():
            later.enter_context(_imported_on_use(name, taken))
        importlib.import_module("aiohttp.web")


class _OnUse(ModuleType):
    """Stands for a module until somebody takes something from it; `taken` does not count until it is used in turn."""

    def __init__(self, name: str, taken: Sequence[str] = ()) -> None:
        super().__init__(name)
        for attribute in taken:
            setattr(self, attribute, _Later(name, attribute))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Later:
    """Stands for a function or an object of a module until it is called or asked for something."""

    def __init__(self, module: str, name: str) -> None:
        self._place = (module, name)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._itself()(*positional, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._itself(), name)

    def _itself(self) -> Any:
        module, name = self._place
        return getattr(importlib.import_module(module), name)


@contextmanager
def _imported_on_use(name: str, taken: Sequence[str] = ()) -> Iterator[None]:
    """Let what is imported meanwhile hold a stand-in of a module. Nobody who imports it afterwards sees that."""
    if name in sys.modules:
        yield
        return
    stand_in = sys.modules[name] = _OnUse(name, taken)
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


@contextmanager
def _no_types_of_files() -> Iterator[None]:
    """Let aiohttp, which can send files, not read what the machine says of their types: up to 0.3 MB."""
    if mimetypes.inited:
        yield
        return
    mimetypes.init(())
    try:
        yield
    finally:
        mimetypes.inited = False


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
