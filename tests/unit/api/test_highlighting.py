"""Marked code on the pages: nothing but escaped text between the marks, in a time proportional to its length."""

from __future__ import annotations

import html
import re
import time

import pytest

from api.pages.highlighting import MAX_CHARACTERS, highlight, language_of
from api.pages.markdown import render_markdown, render_message

LANGUAGES = ["py", "js", "json", "yml", "toml", "sql", "sh", "rs", "html", "css", "diff"]
"""One for each set of rules."""
HOSTILE = "</pre><script>alert(1)</script> \"'`&amp; <!-- ${a} /* # -- \\ \u202e\x00\ud800\n"
PUMPS = (
    "\n ",
    "a",
    "a: ",
    "a.",
    "1.",
    '"\\',
    "'\\",
    "`\\",
    "/*",
    "- ",
    "<!--",
    "</a",
    "'a",
    "'''\n",
    '"""\n',
    "${",
    "#[",
    "@a",
)
LENGTH = 15_000
MAX_CPU_SECONDS = 0.3
"""Eight times what the slowest text takes. A rule that looks at a text again from each place in it takes more."""


def plain(marked: str) -> str:
    """Return the text without marks."""
    assert re.fullmatch(r'(?:[^<>]|<span class="code-\w+">[^<>]*</span>)*', marked)
    return html.unescape(re.sub(r"</?span[^>]*>", "", marked))


def test_words_are_marked_by_their_kind() -> None:
    assert highlight("return 1  # one", "Python") == (
        '<span class="code-keyword">return</span> <span class="code-number">1</span>'
        '  <span class="code-comment"># one</span>'
    )
    assert highlight('{"a": "b"}', "json") == (
        '{<span class="code-name">&#34;a&#34;</span>: <span class="code-string">&#34;b&#34;</span>}'
    )
    assert highlight("SELECT a from b", "sql").count("code-keyword") == 2
    assert highlight("fn f<'a>(x: &'a str) -> 'b'", "rust").count("code-string") == 1
    assert highlight("+a\n-b\n c 1", "patch") == (
        '<span class="code-inserted">+a</span>\n<span class="code-deleted">-b</span>\n c 1'
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_any_text_stays_the_same_in_a_time_proportional_to_its_length(language: str) -> None:
    code = "def a(x): # 1\n  return {'b': 2.5}\n-old\n+new\n" + HOSTILE
    assert "<span" in highlight(code, language)
    assert plain(highlight(code, language)) == code
    for pump in PUMPS:
        # A busy machine may make one try take long.
        assert any(seconds_of(pump, language) < MAX_CPU_SECONDS for _ in range(3)), pump


def seconds_of(pump: str, language: str) -> float:
    """Return the CPU time of a long text."""
    began_at = time.thread_time()
    highlight(pump * (LENGTH // len(pump)), language)
    return time.thread_time() - began_at


def test_unknown_languages_and_long_texts_are_only_escaped() -> None:
    assert highlight("<b>1", "brainfuck") == highlight("<b>1", "") == "&lt;b&gt;1"
    assert highlight("1" * (MAX_CHARACTERS + 1), "python") == "1" * (MAX_CHARACTERS + 1)


def test_the_language_is_that_of_the_format_or_of_the_name() -> None:
    assert language_of("main.py", "") == language_of("notes", "PY ") == "py"
    assert language_of("a.rs", "text") == "rs"
    assert language_of("README", "") == language_of("py", "markdown") == language_of("a.txt", "") == ""


def test_code_in_markdown_is_marked() -> None:
    marked = render_markdown('```py\nif "<b>": pass\n```\n\n```x"><script>\n<i>1\n```')
    assert '<span class="code-string">&#34;&lt;b&gt;&#34;</span>' in marked
    assert "&lt;i&gt;1" in marked
    assert "<script" not in marked
    assert "<i>" not in marked


def test_lines_of_a_message_stay_lines_and_a_plain_one_is_unchanged() -> None:
    plain_text = "Line one\nLine <b>two\n  indented\n\nlast"
    assert (
        render_message(plain_text) == f'<div class="text">{plain_text.replace("<", "&lt;").replace(">", "&gt;")}</div>'
    )
    marked = render_message("**Line** one\nline <b>two\n\n- item")
    assert marked.startswith('<div class="prose"><p><strong>Line</strong> one<br />\nline &lt;b&gt;two</p>')
    assert "<li>item</li>" in marked
    assert render_message("# A\n\n" + "x" * 100_000) == f'<pre class="text"># A\n\n{"x" * 100_000}</pre>'
