"""A page, read as a browser would read it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"input", "meta", "link", "br"}


class Page(HTMLParser):
    """The elements of a page and its text; ``forms`` are (action, method, fields)."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.forms: list[tuple[str, str, list[tuple[str, str]]]] = []
        self.open: list[str] = []
        self._area: str | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "form":
            self.forms.append((found.get("action") or "", found.get("method") or "get", []))
        if tag == "input" and self.forms and found.get("name") and found.get("type") != "checkbox":
            self.forms[-1][2].append((found["name"] or "", found.get("value") or ""))
        if tag == "textarea":
            self._area = found.get("name")
            self.forms[-1][2].append((self._area or "", ""))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()
        if tag == "textarea":
            self._area = None

    def handle_data(self, data):
        self.words.append(data)
        if self._area is not None:
            name, text = self.forms[-1][2][-1]
            self.forms[-1][2][-1] = (name, text + data.removeprefix("\n") if not text else text + data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key.replace("_", "-")) == value for key, value in attributes.items())
        ]

    def form(self, ending: str) -> tuple[str, list[tuple[str, str]]]:
        """Action and fields of the one form that posts to a path."""
        found = [
            (action, fields)
            for action, method, fields in self.forms
            if action.split("#")[0].endswith(ending) and method == "post"
        ]
        assert len(found) == 1, (ending, [action for action, _, _ in self.forms])
        return found[0]
