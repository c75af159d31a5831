"""Forms: posts of our own pages, and of no others."""

from __future__ import annotations

from urllib.parse import parse_qsl

from ..asking import read_body
from ..problems import Problem, refused
from ..site import Call

_MOST_FIELDS = 20_000


class Form:
    """What was sent, by name."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def text(self, name: str) -> str:
        """The text of a field without white space around it; empty where it is missing. Raises Problem for two."""
        found = [text for known, text in self.pairs if known == name]
        if len(found) > 1:
            raise refused(name, "is given twice; give it once")
        return found[0].strip() if found else ""

    def ticked(self, name: str) -> bool:
        """Whether a box is ticked."""
        return self.text(name) != ""

    def chosen(self, name: str, known: tuple[str, ...]) -> str:
        """One of some words; raises Problem 400."""
        text = self.text(name)
        if text not in known:
            raise refused(name, f"is none of {', '.join(known)}")
        return text

    def only(self, names: frozenset[str]) -> list[tuple[str, str]]:
        """The pairs with these names."""
        return [(name, text) for name, text in self.pairs if name in names]


async def read_form(call: Call) -> Form:
    """The form that a page of ours sent.

    The door refused those that name another origin. Here one that names none is refused, too: any page could send a
    form, and every browser says whose it is.

    Raises:
        Problem: 403, 415, 413, 408, 400.
    """
    headers = call.request.headers
    if "origin" not in headers and "sec-fetch-site" not in headers:
        raise Problem(403, "this form does not say which page sent it; scripts use the API below /api/dlq")
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise Problem(415, "a form is sent as application/x-www-form-urlencoded")
    raw = await read_body(call.request, call.site.most_bytes * 3)  # each byte may take three
    try:
        text = raw.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Problem(400, "the form cannot be read; send it from its page") from None
    return Form([(name, value.replace("\r\n", "\n")) for name, value in pairs])
