"""The pages for operators: puts them together, and attaches them to their addresses."""

from __future__ import annotations

import msgspec
from starlette.routing import Route

from api.operations.api_keys import Keys
from api.operations.dead_letters import DeadLetters
from api.operations.deliveries import Deliveries
from api.operations.status import Status
from api.operations.throughput import Throughput
from api.pages.admin.agents import AgentPage
from api.pages.admin.deliveries import DeliveryPages
from api.pages.admin.keys import KeyPages
from api.pages.admin.refusals import RefusalPage
from api.pages.admin.status import StatusPage
from api.pages.visitors import Visitors
from api.tasks.agents import Agents
from relay.http.routing import route
from relay.rejections import RejectionLog


class Operations(msgspec.Struct, frozen=True, kw_only=True):
    """The endpoints of the API that the pages use."""

    deliveries: Deliveries
    dead_letters: DeadLetters
    keys: Keys
    status: Status
    throughput: Throughput
    rejections: RejectionLog
    agents: Agents


def admin_routes(operations: Operations, *, visitors: Visitors, public_url: str) -> list[Route]:
    """The routes for operators."""
    deliveries = DeliveryPages(deliveries=operations.deliveries, dead_letters=operations.dead_letters)
    keys = KeyPages(operations.keys, public_url=public_url)
    pages = {
        "page_status": StatusPage(status=operations.status, throughput=operations.throughput).show,
        "page_refusals": RefusalPage(operations.rejections).show,
        "page_agents": AgentPage(operations.agents).show,
        "page_deliveries": deliveries.deliveries,
        "page_delivery": deliveries.delivery,
        "page_dead_letters": deliveries.dead_letters,
        "page_dead_letter": deliveries.dead_letter,
        "page_keys": keys.keys,
        "page_hooks": keys.hooks,
    }
    forms = {
        "page_replay": deliveries.replay,
        "page_discard": deliveries.discard,
        "page_create_key": keys.create_key,
        "page_create_hook": keys.create_hook,
        "page_revoke_key": keys.revoke,
    }
    return [
        *(route(name, visitors.page(show)) for name, show in pages.items()),
        *(route(name, visitors.form(change)) for name, change in forms.items()),
    ]
