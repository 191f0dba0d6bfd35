"""Mask the parts of a URL that may be secret: user and password, query and fragment.

Used wherever settings, errors in them, or text from other systems are shown.
"""

import re

__all__ = ["masked", "masked_url"]

_MASK = "***"
_WORD = re.compile(r"""[^\s'"]+""")


def masked_url(url: str) -> str:
    """Mask user, password, query and fragment of a URL, even of a malformed one."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    before = scheme + mark
    host = rest.rfind("@") + 1
    ends = [at for at in (rest.find("?"), rest.find("#")) if at >= 0 and rest[at + 1 :]]
    end = min(ends, default=len(rest))
    if host > end:  # it is ambiguous where the password ends
        return f"{before}{_MASK}"
    user = f"{_MASK}@" if host else ""
    query = f"{rest[end]}{_MASK}" if end < len(rest) else ""
    return f"{before}{user}{rest[host:end]}{query}"


def masked(text: str) -> str:
    """Mask all URLs in a text: each word with a user part, or with a query that follows a path or
    has a value."""
    return _WORD.sub(_masked_word, text)


def _masked_word(match: re.Match[str]) -> str:
    word = match[0]
    path, mark, query = word.partition("?")
    is_url = "@" in word or "://" in word or (mark and ("/" in path or "=" in query))
    return masked_url(word) if is_url else word
