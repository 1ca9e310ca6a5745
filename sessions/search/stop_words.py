"""Words that say nothing about a text, except its language: those that users speak most."""

from __future__ import annotations

_ENGLISH = """
a about after again all am an and any are as at be because been before being but by can could did do does doing don
for from had has have having he her hers him his how i if in into is it its just me more most my no nor not of on
or other our ours out over own please s same she should so some such t than that the their them then there these they
this those to too tell up very was we were what whats when where which while who whom why will with would you your yours
"""
_GERMAN = """
aber als am an auch auf aus bei bin bis bist da damit das dass dein dem den der des die dies diese dieser dir doch dort
du durch ein eine einem einen einer eines er es euch fur gab habe haben hat hatte hatten ich ihr ihm ihn im in ist ja
kann mein mich mir mit muss nach nicht noch nun nur ob oder ohne sein sich sie sind so soll uber um und uns unser unsere
vom von vor war waren warum was wann wegen wenn wer werden wie wir wird wo wurde zu zum zur
"""
_SPANISH = """
al como con cual cuando de del donde el ella en era es esta este esto fue ha hay la las le les lo los mas me mi muy nos
nuestra nuestro o para pero por porque que quien se si sin sobre son su sus te tiene tu un una unos y ya
"""
_FRENCH = """
au aux avec c ce ces cette chez d dans de des du elle en est et etait ete etre eu il ils j je l la le les leur lui ma
mais me mes moi mon n ne nos notre nous on ont ou par pas pour qu quand que quel quelle quels qui quoi sa se sera ses
sommes sont sur ta te toi ton tous tout tu un une va vous y
"""
_ITALIAN = """
ai al alla alle che chi ci come con cosa cui da dei del della delle di dove e gli ha ho hanno i il in io la le lo ma mi
nel nella non o per perche piu quale quando questa questo se si sono su sulla ti tra un una
"""
_PORTUGUESE = """
ao as com como da das de do dos e em essa esse eu foi isso mais minha na nas nao no nos o os ou para pela pelo por qual
que quem se seu sua tem uma um voce
"""
_BY_LANGUAGE = {
    "english": _ENGLISH,
    "german": _GERMAN,
    "spanish": _SPANISH,
    "french": _FRENCH,
    "italian": _ITALIAN,
    "portuguese": _PORTUGUESE,
}
LANGUAGES = tuple(_BY_LANGUAGE)
STOP_WORDS = frozenset(" ".join(_BY_LANGUAGE.values()).split())
"""The words of all these languages, without accents."""

_WORDS_OF = {name: frozenset(words.split()) for name, words in _BY_LANGUAGE.items()}
_FIRST = _WORDS_OF[LANGUAGES[0]]
_ASKED_CHARACTERS = 2_000
"""The beginning of a text tells its language."""


def language_of(text: str) -> str:
    """Return the language of which a text has the most stop words, English if it has none."""
    found = STOP_WORDS.intersection(text[:_ASKED_CHARACTERS].lower().split())
    if found <= _FIRST:  # No language can have more of them.
        return LANGUAGES[0]
    return max(LANGUAGES, key=lambda language: len(found & _WORDS_OF[language]))
