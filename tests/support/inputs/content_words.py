"""Content words of texts, to check that a question shares none with the text that answers it."""

from __future__ import annotations

import re
import unicodedata

STEM_LETTERS = 5
"""Words that begin with the same letters count as one: a rough stem for all languages."""
FUNCTION_WORDS = """
a about after all am an and any are as at be before but by can could did do does don down each for from get give
go had has have he her his how i if in into is it its keep let long may me more most much must my never no not
of off on or our out over put shall she should so some than that the their them then there they this those to
too up us was we were what when where which while who whose why will with without would you your
ab als am an auch auf aus bei bis da das dass dem den der des die dürfen ein eine einem einen einer er es für
gibt hat haben ich ihr ihre im in ist kann man mehr mein mit müssen muss nach nicht noch nur oder ohne sein sich
sie sind so um und uns unser unsere vom von vor wann war warum was welche welchem welcher welches wenn wer werden
wie wir wird wo womit wurde zu zum zur darf
al algo así como con cuando cual cuál cuánto cuándo de del desde dónde el ella en entre es esta está este fue ha
hace hacemos hay hasta la las le les llevamos lo los me más mi mis nada no nos o para pero poner por puede que qué
quién se ser si sin sobre su sus también te tiene tu un una y ya cómo porque
ai au aux avec ce ces cette comment dans de des donc du elle en est et eux fait faut il ils je la le les leur lui
ma mais me mes mon ne nos notre nous on ou par pas peut pour pourquoi qu quand que quel quelle quelles quels qui
quoi sa se ses si son sont sur tu un une vous à été être où combien a d l j m n s t y
alla alle anche che chi ci col come con cosa da dal dalla dei del della delle di dove e ed fa gli ha hanno i il in
io la le li lo ma mi ne nei nel nella noi non nostra nostro o per perché più può quale quali quando quanti quanto
questo se si sono su sul sulla tra un una uno
"""
CHINESE_FUNCTION_WORDS = "什么 怎么 哪里 哪家 多少 我们 你们 他们 可以 要不 不要 时候 是不 一个 的时 么时"
_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile(r"[\u4e00-\u9fff]+")


def content_words(text: str) -> set[str]:
    """Return the words that carry meaning, without accents and endings; pairs of characters of Chinese text."""
    folded = _fold(text)
    words = {word for word in _WORD.findall(_HAN.sub(" ", folded)) if word not in _FOLDED and len(word) > 1}
    pairs = {run[place : place + 2] for run in _HAN.findall(folded) for place in range(len(run) - 1)}
    return {word[:STEM_LETTERS] for word in words} | (pairs - set(CHINESE_FUNCTION_WORDS.split()))


def _fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


_FOLDED = frozenset(_fold(FUNCTION_WORDS).split())
