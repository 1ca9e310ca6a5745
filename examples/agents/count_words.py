#!/usr/bin/env python3
"""An agent in Python: counts the words of everything that was said in a task's session.

Run it with API_KEY (a key with the scopes `agent` and `read`) and RELAY_URL in the environment. `ONCE=1` ends it after
one task.
"""

import os
from collections import Counter

from session_relay import Client, RelayError, Task


def work(client: Client, task: Task) -> None:
    """Count, and hand in the result."""
    words: Counter[str] = Counter()
    for chunk in client.each(client.read_conversation, task.session_id, max_characters=90_000):
        words.update(chunk["content"].lower().split())
        if not task.heartbeat(f"{words.total():,} words so far"):
            return  # The result is no longer wanted.
    if not words:
        task.ask("Nothing was said yet. What should I count?")
        return
    table = "\n".join(f"| {word} | {count} |" for word, count in words.most_common(20))
    report = {"name": "Words", "type": "document", "content": f"| word | count |\n|---|---|\n{table}\n"}
    task.complete(f"{words.total():,} words, {len(words):,} different ones.", artifacts=[report])


with Client() as client:
    for task in client.tasks("researcher", worker="count-words"):
        try:
            work(client, task)
        except RelayError as error:
            print(f"{task}: {error}")
        if os.environ.get("ONCE"):
            break
