"""The one look of all reports: markup that escapes by itself, and the page round it. No network and no script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from dmu_hw import __version__

_VOID = frozenset({"br", "img", "meta", "path"})
_FORBID_NETWORK = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class Html(str):
    """Text that is markup already. Every other text is escaped where it enters a page."""

    __slots__ = ()


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """One element. `class_` is class, `aria_label` is aria-label; attributes of None are left out, True stands bare."""
    spelled = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    return Html(f"<{name}{spelled}>" + ("" if name in _VOID else f"{join(inside)}</{name}>"))


def join(parts: Iterable[object]) -> Html:
    """Elements and texts, one after the other; None is nothing."""
    return Html("".join(_markup(part) for part in parts))


def _markup(part: object) -> str:
    if part is None:
        return ""
    return part if isinstance(part, Html) else escape(str(part))


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


@dataclass(frozen=True)
class Section:
    """A part of a page that can be linked to by its name."""

    name: str
    title: str
    inside: tuple[Html, ...]

    @property
    def html(self) -> Html:
        label = f"{self.name}-title"
        return tag("section", tag("h2", self.title, id=label), *self.inside, id=self.name, aria_labelledby=label)


def page(title: str, top: Iterable[Html], sections: Sequence[Section]) -> str:
    """A whole document; the browser itself is told to load nothing."""
    style = files("dmu_hw.view").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_FORBID_NETWORK),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Html(style)),
    )
    links = tag("nav", *(tag("a", part.title, href=f"#{part.name}") for part in sections), aria_label="Contents")
    body = tag(
        "body",
        tag("header", *top, links),
        tag("main", *(part.html for part in sections)),
        tag("footer", paragraph(f"Written by dmu-hw {__version__}; one file, which loads nothing from any network.")),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def paragraph(*inside: object, class_: str | None = None) -> Html:
    return tag("p", *inside, class_=class_)


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: bool = True) -> Html:
    """The first cell of a row names it; the others hold numbers, or text."""
    head = tag("thead", tag("tr", *(tag("th", column, scope="col") for column in columns)))
    body = tag(
        "tbody", *(tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    )
    inner = tag("table", tag("caption", caption), head, body, class_="numbers" if numbers else None)
    return tag("div", inner, class_="scroll")


def pairs(rows: Iterable[tuple[object, object]], *, class_: str = "pairs") -> Html:
    """Names and what they stand for."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), class_=class_)


def verbatim(title: str, text: str, limit: int = 300_000) -> Html:
    """A text as it is, behind a line to open; of a huge one the beginning, and it says so."""
    left = len(text) - limit
    more = paragraph(f"… and {left:,} more characters, which are in the file.") if left > 0 else None
    return tag("details", tag("summary", title), tag("pre", tag("code", text[:limit]), tabindex="0"), more)
