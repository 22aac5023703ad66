"""What `up` needs to know of the organisation document, and the one thing it may change in it: where traffic goes.

Pure: documents are the plain values of a parsed file.
"""

import copy
from collections.abc import Container, Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from services.cli.errors import Trouble
from shared.contracts.organisation import Organisation

Document = dict[str, Any]

ANTHROPIC = "https://api.anthropic.com"
API_KEY = "ANTHROPIC_API_KEY"


class _Loader(yaml.SafeLoader):
    """Safe YAML that leaves dates as the text people wrote, as the console reads them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str, name: str) -> Document:
    """Raises Trouble naming the file and the field that is wrong. The console has the last word when it is applied."""
    try:
        document = yaml.load(text, Loader=_Loader) or {}  # noqa: S506  # a SafeLoader
        msgspec.convert(document, Organisation)
    except yaml.YAMLError as error:
        raise Trouble(f"{name} is not YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise Trouble(f"{name}: {error}") from None
    assert isinstance(document, dict)
    return document


def references(document: Document) -> Iterator[tuple[Document, str]]:
    """(provider, reference) of every provider credential."""
    for provider in document.get("providers") or ():
        if reference := provider.get("credential"):
            yield provider, reference
        for credential in provider.get("credentials") or ():
            yield provider, credential["ref"]


def credential_names(document: Document) -> set[str]:
    """Names of the environment variables that its `env:` references mean."""
    return {reference.removeprefix("env:") for _, reference in references(document) if reference.startswith("env:")}


def routed(document: Document, simulator_url: str, former_urls: frozenset[str] = frozenset()) -> Document:
    """The document with Anthropic's traffic where it can be served.

    simulator_url: where the simulator is, "" when a real key is set. former_urls: where it was before. Only providers that
    take the key from ANTHROPIC_API_KEY change, and only between Anthropic's address and the simulator's.
    """
    document = copy.deepcopy(document)
    for provider, reference in references(document):
        base = str(provider.get("base_url", "")).rstrip("/")
        if reference == f"env:{API_KEY}" and (base in former_urls or (simulator_url and base == ANTHROPIC)):
            provider["base_url"] = simulator_url or ANTHROPIC
    return document


def unset(document: Document, given: Container[str]) -> list[str]:
    """One line for each provider whose `env:` reference names a variable that is not given."""
    return [
        f"{provider['name']}: {reference} is not set, its requests will fail"
        for provider, reference in references(document)
        if reference.startswith("env:") and reference.removeprefix("env:") not in given
    ]


def simulated(document: Document, simulator_url: str) -> list[str]:
    """Names of the providers whose traffic goes to the simulator."""
    if not simulator_url:
        return []
    return [str(p["name"]) for p in document.get("providers") or () if p["base_url"].rstrip("/") == simulator_url]


def real(document: Document, simulator_url: str) -> list[tuple[str, str]]:
    """(name, host) of the other providers."""
    found = ((str(p["name"]), str(p["base_url"]).rstrip("/")) for p in document.get("providers") or ())
    return [(name, urlsplit(url).netloc or url) for name, url in found if url != simulator_url]


def shards(document: Document) -> set[str]:
    """Where its organisation wants to live, if it says so."""
    shard = (document.get("org") or {}).get("shard")
    return {str(shard)} if shard else set()


def first_key(document: Document) -> tuple[str, str] | None:
    """(`customer/team/key`, its fixed secret or "") of the first key in the document."""
    for customer in document.get("customers") or ():
        for team in customer.get("teams") or ():
            for key in team.get("keys") or ():
                return f"{customer['id']}/{team['id']}/{key['id']}", str(key.get("secret") or "")
    return None


def with_first_secret(document: Document, secret: str) -> Document:
    """The document with a fixed secret on its first key.

    Used for our own default alone: made before it is applied, the secret survives a crash between the two.
    """
    document = copy.deepcopy(document)
    document["customers"][0]["teams"][0]["keys"][0]["secret"] = secret
    return document


def dump(document: Document) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
