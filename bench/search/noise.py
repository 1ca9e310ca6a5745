"""Ordinary notes that ask for nothing in the corpus, to see if newer texts hide older ones."""

from __future__ import annotations

import random
from itertools import cycle, islice
from typing import Any

SESSIONS = 10
PARTS = (
    (
        *("The neighbour|My sister|A customer|The doctor|Our teacher|The new colleague|A friend|The landlord",),
        *("bought|forgot|asked about|paid for|talked about|sent back|has lost|wants to see",),
        *("a blue bicycle|the kitchen table|two tickets|the old phone|a box of books|the price of milk|a warm coat",),
        *("last week|on Monday|in the morning|before the holiday|after work|at half past ten|in March|for 40 euros",),
    ),
    (
        *("Der Nachbar|Meine Schwester|Eine Kundin|Der Arzt|Unsere Lehrerin|Ein Freund|Die Vermieterin",),
        *("kaufte|vergaß|bezahlte|suchte|verlor|bestellte|zeigte",),
        *("ein blaues Fahrrad|den Küchentisch|zwei Karten|das alte Telefon|eine Kiste Bücher|einen warmen Mantel",),
        *("letzte Woche|am Montag|am Morgen|vor den Ferien|nach der Arbeit|um halb elf|im März|für 40 Euro",),
    ),
    (
        *("El vecino|Mi hermana|Una clienta|La médica|Nuestro profesor|Un amigo|La casera",),
        *("compró|olvidó|pagó|buscó|perdió|encargó|enseñó",),
        *("una bicicleta azul|la mesa de la cocina|dos entradas|el teléfono viejo|una caja de libros",),
        *("la semana pasada|el lunes|por la mañana|antes de las vacaciones|a las diez y media|en marzo",),
    ),
    (
        *("邻居|我妹妹|一位客人|医生|老师|新同事|房东",),
        *("买了|忘了|问起|付了|说到|退回了|丢了",),
        *("一辆蓝色自行车|厨房的桌子|两张票|旧手机|一箱书|一件大衣",),
        *("，上个星期|，星期一|，早上|，放假以前|，下班以后|，三月份",),
    ),
)
"""Parts of sentences in four languages."""


def notes(count: int, *, seed: int = 1) -> list[dict[str, Any]]:
    """Return notes in sessions of their own, as store_memory takes them. The same seed returns the same notes."""
    chance = random.Random(seed)  # noqa: S311
    return [
        {
            "session_id": f"noise-{number % SESSIONS}",
            "key": f"note-{number}",
            "type": "note",
            "content": _sentence(chance, parts),
        }
        for number, parts in enumerate(islice(cycle(PARTS), count))
    ]


def _sentence(chance: random.Random, parts: tuple[str, ...]) -> str:
    words = [chance.choice(part.split("|")) for part in parts]
    return "".join(words) if not words[0].isascii() and len(words[0]) < len("12345") else " ".join(words)
