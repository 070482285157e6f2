"""What a browser would make of a page: its elements, its scripts, and the text that it shows."""

from __future__ import annotations

from html.parser import HTMLParser


class Seen(HTMLParser):
    """The elements of a page, its scripts, and the text that it shows."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.events: set[str] = set()
        self.scripts: list[str] = []
        self.shown: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.events |= {name for name, _ in attrs if name.startswith("on")}

    def handle_data(self, data: str) -> None:
        (self.scripts if self.lasttag == "script" else self.shown).append(data)
