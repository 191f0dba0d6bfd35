"""Find conflicts between keys that are valid on their own, and problems outside the file.

Works on the data as written, so that these problems are reported together with all others.
"""

from collections.abc import Hashable
from typing import Any

from olla.fleet.model_names import canonical
from olla.settings.document import Document
from olla.settings.endpoint import default_name
from olla.settings.endpoint_auth import SECRETS, read_secret
from olla.settings.endpoint_url import EndpointUrl, read_address
from olla.settings.model import Static
from olla.settings.problems import Key
from olla.settings.values import did_you_mean

__all__ = ["check_all"]

_NO = ("false", "no", "off", "0", "n", "f")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_all(document: Document) -> None:
    """Report conflicts and missing references in the document.

    These are: endpoints that share a name or an address or are the router itself, references to
    unknown endpoints (reserved for embeddings, or of a key), aliases that are equal for Ollama,
    and secret files that cannot be read.
    """
    names: dict[Hashable, str] = {}
    addresses: dict[Hashable, str] = {}
    all_named = True
    for key, endpoint in document.endpoints():
        place = f"endpoints[{key[-1]}]"
        name, url = endpoint.get("name"), endpoint.get("url")
        try:
            address = read_address(url) if isinstance(url, str) else None
        except ValueError:
            address = None
        if address is not None:
            _check_not_itself(document, (*key, "url"), address)
            _unique(document, (*key, "url"), addresses, address, place, f"'{url}' is the address")
        if isinstance(name, str) and name:
            _unique(document, (*key, "name"), names, name, place, f"'{name}' is the name")
        elif not name and isinstance(key[-1], int):
            derived = default_name(key[-1])
            _unique(document, (*key, "name"), names, derived, place, f"'{derived}' is the name")
        else:
            all_named = False
        _check_secret_files(document, key, endpoint.get("auth"))
    if all_named:
        known = {str(name) for name in names} or _default_names(document)
        _check_reserved(document, known)
        _check_endpoints_of_keys(document, known)
    _note_open_to_pages(document)
    aliases = document.data.get("model_aliases")
    seen: dict[Hashable, str] = {}
    for alias in aliases if isinstance(aliases, dict) else ():
        _unique(
            document,
            ("model_aliases", alias),
            seen,
            canonical(alias),
            f"'{alias}'",
            f"for Ollama, '{alias}' is the name",
        )


def _note_open_to_pages(document: Document) -> None:
    """Report a router that every web page may use without a key."""
    server, access = document.data.get("server"), document.data.get("access")
    cors = server.get("cors") if isinstance(server, dict) else None
    if not isinstance(cors, dict) or str(cors.get("enabled", True)).lower() in _NO:
        return
    origins = cors.get("allowed_origins")
    keyed = isinstance(access, dict) and str(access.get("require_key", False)).lower() not in _NO
    if isinstance(origins, list) and "*" in origins and not keyed:
        document.note(
            ("server", "cors", "allowed_origins"),
            "any web page may use this router without a key; list the origins, or set "
            "access.require_key",
        )


def _unique(
    document: Document,
    key: Key,
    seen: dict[Hashable, str],
    value: Hashable,
    place: str,
    what: str,
) -> None:
    """Report a value that was `seen` before, else record its place."""
    if value in seen:
        document.add(key, f"{what} of {seen[value]} already; it must be unique")
    else:
        seen[value] = place


def _default_names(document: Document) -> set[str]:
    """Return the default endpoint names if the file has no endpoint list; empty otherwise."""
    found: Any = document.data
    for part in ("discovery", "static", "endpoints"):
        if found is None:  # a key without a value counts as omitted
            break
        if not isinstance(found, dict):
            return set()
        found = found.get(part)
    return {each.name for each in Static().endpoints} if found is None else set()


def _check_not_itself(document: Document, key: Key, address: EndpointUrl) -> None:
    """Report an endpoint that is the router itself: its requests would loop."""
    server = document.data.get("server")
    server = server if isinstance(server, dict) else {}
    port, host = server.get("port", 40114), str(server.get("host", "localhost"))
    router = {host, *_LOOPBACK} if host in (*_LOOPBACK, "0.0.0.0", "::") else {host}
    if str(address.port) == str(port) and address.host in router:
        document.add(
            key, "this is the address of the router, so requests would loop; name another server"
        )


def _check_reserved(document: Document, names: set[str]) -> None:
    """Report unknown endpoints reserved for embeddings, and a reservation of all endpoints.

    Without names there is nothing to check: the endpoint list itself is invalid.
    """
    routing = document.data.get("routing")
    reserved = routing.get("embedding_endpoints") if isinstance(routing, dict) else None
    if not isinstance(reserved, list) or not names:
        return
    key: Key = ("routing", "embedding_endpoints")
    _check_named(document, key, reserved, names)
    if names <= {*map(str, reserved)}:
        document.add(
            key,
            "this reserves every endpoint for embeddings; leave at least one for other requests",
        )


def _check_endpoints_of_keys(document: Document, names: set[str]) -> None:
    """Report unknown endpoints of a key: its requests could not be routed."""
    access = document.data.get("access")
    keys = access.get("keys") if isinstance(access, dict) else None
    for at, each in enumerate(keys if isinstance(keys, list) and names else ()):
        wanted = each.get("endpoints") if isinstance(each, dict) else None
        if isinstance(wanted, list):
            _check_named(document, ("access", "keys", at, "endpoints"), wanted, names)


def _check_named(document: Document, key: Key, wanted: list[Any], names: set[str]) -> None:
    for at, name in enumerate(wanted):
        if isinstance(name, str) and name.strip() and name not in names:
            message = f"no endpoint is named '{name}'{did_you_mean(name, sorted(names))}"
            document.add((*key, at), message)


def _check_secret_files(document: Document, key: Key, auth: Any) -> None:
    for name in SECRETS if isinstance(auth, dict) else ():
        path = auth.get(f"{name}_file")
        if isinstance(path, str):
            try:
                read_secret(path)
            except ValueError as error:
                document.add((*key, "auth", f"{name}_file"), str(error))
