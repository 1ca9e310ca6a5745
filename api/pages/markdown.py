"""Renders Markdown of unknown authors to HTML: no HTML of theirs, no images, no links but to the web and by mail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

from api.pages.highlighting import highlight

MAX_CHARACTERS = 100_000
"""A longer text is shown as it is: rendering takes the event loop's time."""
HEADINGS_ABOVE, LOWEST_HEADING = 2, 6
PLAIN = ("paragraph_open", "paragraph_close", "inline", "text", "softbreak", "hardbreak")
"""Types of tokens. Lines that end with spaces have hard breaks."""
SCHEMES = ("http", "https", "mailto")


def render_markdown(text: str) -> Markup:
    """Render a text of at most MAX_CHARACTERS to safe HTML; a longer one is only escaped."""
    if len(text) > MAX_CHARACTERS:
        return Markup('<pre class="text">{}</pre>').format(text)
    return Markup(_MARKDOWN.render(text))  # noqa: S704 -- the parser escapes all text, and has HTML turned off.


def render_message(text: str) -> Markup:
    """Render a text that may be Markdown or not: its line breaks are kept, and without any markup all its spaces. A
    text of more than MAX_CHARACTERS is only escaped."""
    if len(text) > MAX_CHARACTERS:
        return render_markdown(text)
    tokens = _MESSAGES.parse(text)
    if all(_is_plain(token) for token in tokens):
        return Markup('<div class="text">{}</div>').format(text)
    rendered = _MESSAGES.renderer.render(tokens, _MESSAGES.options, {})
    return Markup(f'<div class="prose">{rendered}</div>')  # noqa: S704 -- as above.


def _is_plain(token: Token) -> bool:
    """Whether a token stands in texts without markup."""
    return token.type in PLAIN and all(_is_plain(part) for part in token.children or ())


def _is_safe(url: str) -> bool:
    """Whether a link may lead there: to the web, by mail, or to a place in this page."""
    try:
        scheme = urlsplit(url).scheme.lower()
    except ValueError:
        return False
    return scheme in SCHEMES or (not scheme and url.startswith("#"))


def _open_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, environment: EnvType
) -> str:
    tokens[index].attrSet("rel", "noopener noreferrer nofollow")
    return renderer.renderToken(tokens, index, options, environment)


def _below_the_title(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, environment: EnvType
) -> str:
    """The page has headings of its own above the text."""
    level = min(int(tokens[index].tag.removeprefix("h")) + HEADINGS_ABOVE, LOWEST_HEADING)
    tokens[index].tag = f"h{level}"
    return renderer.renderToken(tokens, index, options, environment)


def _align(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, environment: EnvType
) -> str:
    """The policy of the pages allows no style in HTML."""
    style = str(tokens[index].attrs.pop("style", ""))
    if style:
        tokens[index].attrSet("class", style.removeprefix("text-align:"))
    return renderer.renderToken(tokens, index, options, environment)


def _image_as_link(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, environment: EnvType
) -> str:
    """Images would tell their hosts who reads the page."""
    token = tokens[index]
    name = renderer.renderInlineAsText(token.children, options, environment) or "image"
    return f'<a href="{escape(token.attrs["src"])}" rel="noopener noreferrer nofollow">{escape(name)}</a>'


def _mark_code(code: str, language: str, _attributes: str) -> str:
    return str(highlight(code, language))


def _make(*, breaks: bool = False) -> MarkdownIt:
    options = {"html": False, "maxNesting": 20, "highlight": _mark_code, "breaks": breaks}
    parser = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
    rules: Any = {"link_open": _open_link, "image": _image_as_link, "th_open": _align, "td_open": _align}
    rules |= {"heading_open": _below_the_title, "heading_close": _below_the_title}
    for name, rule in rules.items():
        parser.add_render_rule(name, rule)
    parser.validateLink = _is_safe  # type: ignore[method-assign]
    return parser


_MARKDOWN = _make()
_MESSAGES = _make(breaks=True)
