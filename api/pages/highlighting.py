"""Marks comments, strings, numbers and keywords in code of unknown authors, for the most common languages.

Each rule keeps whatever it has looked at, also if an end is missing, and looks back at one character at most. So the
time is proportional to the length of any text. It does not parse: it does not tell strings within strings apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from markupsafe import Markup, escape

MAX_CHARACTERS = 50_000
"""A longer text is shown without marks: in the worst case they are 25 times as long as the text."""

_HASH = r"(?P<comment>#[^\n]*+)"
_HASH_AFTER_BLANK = r"(?P<comment>(?<!\S)[#;][^\n]*+)"
_SLASHES = r"(?P<comment>//[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/)?)"
_DASHES = r"(?P<comment>--[^\n]*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/)?)"
_ONE_LINE = r""""(?:[^"\\\n]++|\\.)*+"?|'(?:[^'\\\n]++|\\.)*+'?"""
_MANY_LINES = r""""(?:[^"\\]++|\\.)*+"?|'(?:[^'\\]++|\\.)*+'?"""
_TRIPLE = r'''"""(?:[^"\\]++|\\.|"(?!""))*+(?:""")?|\'\'\'(?:[^'\\]++|\\.|'(?!\'\'))*+(?:\'\'\')?'''
_NUMBER = r"(?P<number>\d[\w.]*+)"
_WORD = r"(?P<word>[^\W\d]\w*+)"


def _string(*forms: str) -> str:
    return f"(?P<string>{'|'.join(forms)})"


_CURLY = (_SLASHES, _string(_ONE_LINE, r"`(?:[^`\\]++|\\.)*+`?"), r"(?P<name>@[\w.]++|^[ \t]*+#[ \t]*+\w++)")
_LETTERS = "(?:[bBfFrRuU]{1,2}(?=[\"']))?"


class Language(NamedTuple):
    """A language: its rules, of which the first that fits counts, and its keywords."""

    rules: re.Pattern[str]
    keywords: frozenset[str]
    ignores_case: bool = False


def _language(*rules: str, keywords: str = "", ignores_case: bool = False) -> Language:
    pattern = re.compile("|".join((*rules, _NUMBER, _WORD)), re.DOTALL | re.MULTILINE)
    return Language(pattern, frozenset(keywords.split()), ignores_case)


_JAVASCRIPT = """as async await break case catch class const continue debugger default delete do else export extends
false finally for from function get if import in instanceof let new null of return set static super switch this throw
true try typeof undefined var void while with yield"""
_C = """auto bool break case char const continue default do double else enum extern false float for goto if inline int
long NULL register restrict return short signed sizeof static struct switch true typedef union unsigned void volatile
while"""
_JAVA = """abstract assert boolean break byte case catch char class const continue default do double else enum extends
false final finally float for if implements import in instanceof int interface is long native new null object operator
override package private protected public record return short static string super switch synchronized this throw throws
true try using var virtual void when while"""

_LANGUAGES = {
    "python": _language(
        _HASH,
        _string(f"{_LETTERS}(?:{_TRIPLE}|{_ONE_LINE})"),
        r"(?P<name>@[\w.]++)",
        keywords="""and as assert async await break case class continue def del elif else except False finally for from
        global if import in is lambda match None nonlocal not or pass raise return self True try type while with
        yield""",
    ),
    "javascript": _language(*_CURLY, keywords=_JAVASCRIPT),
    "typescript": _language(
        *_CURLY,
        keywords=f"""{_JAVASCRIPT} abstract any boolean declare enum implements interface keyof namespace never number
        private protected public readonly string type unknown""",
    ),
    "json": _language(
        _SLASHES,
        r'(?P<name>"(?:[^"\\\n]++|\\.)*+"(?=[ \t]*+:))',
        _string(_ONE_LINE),
        keywords="true false null",
    ),
    "yaml": _language(
        _HASH_AFTER_BLANK,
        r"(?P<name>^[ \t]*+(?:-[ \t]++)*+[\w./-]++(?=[ \t]*+:(?:\s|\Z)))",
        _string(r"""(?<!\w)(?:"(?:[^"\\]++|\\.)*+"?|'[^'\n]*+'?)"""),
        keywords="true false null yes no on off",
    ),
    "toml": _language(
        _HASH_AFTER_BLANK,
        r"(?P<keyword>^[ \t]*+\[[^\n]*+)",
        r"(?P<name>^[ \t]*+[\w.-]++(?=[ \t]*+=))",
        _string(_TRIPLE, _ONE_LINE),
        keywords="true false",
    ),
    "sql": _language(
        _DASHES,
        _string(r"'[^']*+'?", r'"[^"\n]*+"?'),
        keywords="""add all alter and any as asc begin between by cascade case check column commit constraint create
        cross cte database default delete desc distinct drop else end except exists false foreign from full function
        grant group having if in index inner insert intersect into is join key lateral left like limit not null on or
        order outer over partition primary recursive references returning revoke right rollback select set table then
        trigger true union unique update using values view when where with""",
        ignores_case=True,
    ),
    "bash": _language(
        r"(?P<comment>(?<![^\s;])#[^\n]*+)",
        _string(r'"(?:[^"\\]++|\\.)*+"?', r"'[^']*+'?"),
        r"(?P<name>\$(?:\w++|\{[^}\n]*+\}?|[@#?*!$-]))",
        keywords="""case do done elif else esac exit export fi for function if in local readonly return select set shift
        source then trap unset until while""",
    ),
    "go": _language(
        *_CURLY,
        keywords="""any bool break byte case chan const continue default defer else error fallthrough false float64 for
        func go goto if import int int64 interface map nil package range return rune select string struct switch true
        type uint var""",
    ),
    "rust": _language(
        _SLASHES,
        r"(?P<plain>'[^\W\d]\w*+(?!'))",
        _string(_MANY_LINES),
        r"(?P<name>\#!?\[[^\]\n]*+\]?)",
        keywords="""as async await bool break const continue crate dyn else enum extern f64 false fn for i32 i64 if impl
        in let loop match mod move mut pub ref return self Self static str String struct super trait true type u32 u64
        u8 unsafe use usize where while""",
    ),
    "c": _language(
        *_CURLY,
        keywords=f"""{_C} catch class constexpr delete explicit friend mutable namespace new nullptr operator override
        private protected public template this throw try typename using virtual""",
    ),
    "java": _language(*_CURLY, keywords=f"{_JAVA} fun val data sealed foreach get set async await"),
    "html": _language(
        r"(?P<comment><!--(?:[^-]++|-(?!->))*+(?:-->)?)",
        r"(?P<keyword><[/!?]?[A-Za-z][\w:.-]*+|[/?]?>)",
        _string(r"""(?<==)(?:"[^"<]*+"?|'[^'<]*+'?)"""),
        r"(?P<name>[A-Za-z_:@][\w:.@-]*+(?==))",
        r"(?P<plain>[\w:.@-]++)",
    ),
    "css": _language(
        _SLASHES.replace(r"//[^\n]*+|", ""),
        _string(_ONE_LINE),
        r"(?P<keyword>@[\w-]++)",
        r"(?P<name>[A-Za-z_-][\w-]*+(?=:[ \t]))",
        r"(?P<plain>[A-Za-z_-][\w-]*+)",
    ),
    "diff": _language(
        r"(?P<keyword>^(?:\+\+\+|---|@@|diff |index )[^\n]*+)",
        r"(?P<inserted>^\+[^\n]*+)",
        r"(?P<deleted>^-[^\n]*+)",
        r"(?P<plain>[^\n]++)",
    ),
}
_ALIASES = {
    "python": "py pyi",
    "javascript": "js mjs cjs jsx",
    "typescript": "ts tsx mts",
    "json": "jsonl jsonc json5",
    "yaml": "yml",
    "toml": "ini cfg conf",
    "sql": "postgresql psql",
    "bash": "sh shell zsh console",
    "go": "golang",
    "rust": "rs",
    "c": "h cpp c++ cc hpp",
    "java": "kt kotlin cs csharp c# scala swift dart php",
    "html": "htm xml svg vue",
    "css": "scss less",
    "diff": "patch",
}
"""Other names of the languages, and the endings of their files."""
_LANGUAGE_OF = {alias: language for name, language in _LANGUAGES.items() for alias in (name, *_ALIASES[name].split())}


def highlight(code: str, language: str) -> Markup:
    """Return the code as HTML: escaped, with marks if the language is known and the code is not too long."""
    chosen = _LANGUAGE_OF.get(language.strip().lower())
    if chosen is None or len(code) > MAX_CHARACTERS:
        return escape(code)
    parts: list[str] = []
    end = 0
    for found in chosen.rules.finditer(code):
        kind, text = found.lastgroup, found[0]
        if kind == "word":
            is_keyword = (text.lower() if chosen.ignores_case else text) in chosen.keywords
            kind = "keyword" if is_keyword else None
        if kind in (None, "plain"):
            continue
        parts += escape(code[end : found.start()]), f'<span class="code-{kind}">{escape(text)}</span>'
        end = found.end()
    parts.append(escape(code[end:]))
    return Markup("".join(parts))  # noqa: S704 -- all text in it is escaped.


def language_of(name: str, form: str) -> str:
    """Return the known language of an artifact: that of its format, or else of the ending of its name; else ""."""
    _, _, ending = name.rpartition(".") if "." in name else ("", "", "")
    return next((known for word in (form, ending) if (known := word.strip().lower()) in _LANGUAGE_OF), "")
