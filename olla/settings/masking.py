"""What may be a secret in a URL, masked: the part before its host, and its query.

For everything that shows settings, errors in them, or what somebody else has sent.
"""

import re

__all__ = ["masked", "masked_url"]

_MASK = "***"
_WORD = re.compile(r"""[^\s'"]+""")


def masked_url(url: str) -> str:
    """A URL, or what was meant to be one, without user, password, query and fragment."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    before = scheme + mark
    host = rest.rfind("@") + 1
    ends = [at for at in (rest.find("?"), rest.find("#")) if at >= 0 and rest[at + 1 :]]
    end = min(ends, default=len(rest))
    if host > end:  # nobody can tell where a password ends
        return f"{before}{_MASK}"
    user = f"{_MASK}@" if host else ""
    query = f"{rest[end]}{_MASK}" if end < len(rest) else ""
    return f"{before}{user}{rest[host:end]}{query}"


def masked(text: str) -> str:
    """A text with all URLs in it masked: each word that has a user part, or a query behind a path
    or with a value."""
    return _WORD.sub(_masked_word, text)


def _masked_word(match: re.Match[str]) -> str:
    word = match[0]
    path, mark, query = word.partition("?")
    is_url = "@" in word or "://" in word or (mark and ("/" in path or "=" in query))
    return masked_url(word) if is_url else word
