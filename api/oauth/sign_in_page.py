"""The OAuth sign-in page, where a user enters a key: one form, no scripts, no external resources."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse, Response

from api.static_files import url_of

HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sign in – session-relay</title>
<link rel="icon" type="image/svg+xml" href="{url_of("icon.svg")}">
<link rel="stylesheet" href="{url_of("theme.css")}">
<link rel="stylesheet" href="{url_of("page.css")}">
</head>
<body>
<main class="wide">
<div class="card narrow">
"""
END = """</div>
</main>
</body>
</html>
"""


def sign_in_page(
    *, app: str, redirect_uri: str, relay: str, parameters: Mapping[str, str], error: str = "", status: int = 200
) -> Response:
    """Render the form, which posts `parameters` with the key. All of them are untrusted."""
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in parameters.items()
    )
    problem = f'<p class="problem" role="alert">{escape(error)}</p>' if error else ""
    target = where_to(redirect_uri)
    content = f"""{HEAD}<h1>Sign in to {escape(relay)}</h1>
<p>An app named “{escape(app)}” requests access. Access goes to <strong>{escape(target)}</strong>.</p>
{problem}
<form method="post" action="/oauth/sign-in" autocomplete="off">
{hidden}
<label for="key">API key</label>
<input id="key" name="key" type="password" autofocus spellcheck="false" placeholder="srk_…" maxlength="200"
 aria-describedby="rights">
<section id="rights" class="hint">
<p>The app gets the scopes of the key, in the key’s sessions, until you revoke it:</p>
<ul>
<li><b>read</b>: read conversations, memories, tasks and artifacts</li>
<li><b>write</b>: also add and change them</li>
<li><b>delegate</b>: have agents run tasks on their machines</li>
<li><b>agent</b>: claim such tasks and do them</li>
<li><b>admin</b>: everything, including deleting sessions and creating keys</li>
</ul>
<p>Use a key with no more scopes than the app needs.</p>
</section>
<div class="row"><button class="main" name="answer" value="allow">Allow</button>
<button name="answer" value="deny">Cancel</button></div>
</form>
<p class="hint">The app chose its name itself. If you did not just ask it to connect, or do not recognize
{escape(target)}, cancel. The app never sees the key.</p>
{END}"""
    return HTMLResponse(content, status, headers=_headers(redirect_uri))


def refusal_page(message: str, *, code: str = "", back: str = "") -> Response:
    """Render an error in an app's request, with its OAuth error `code`. `back` is the redirect URI: the page has a
    link to it, but does not redirect."""
    name = f" <small>({escape(code)})</small>" if code else ""
    link = f'<a href="{escape(back)}" rel="noreferrer">Return to {escape(where_to(back))}</a>' if back else ""
    content = f"""{HEAD}<h1>Sign-in failed</h1>
<p class="problem" role="alert">{escape(message)}{name}</p>
<p>Start again from the app. If you followed a link to get here, close this page.</p>
<p>{link}</p>
{END}"""
    return HTMLResponse(content, 400, headers=_headers(""))


def where_to(redirect_uri: str) -> str:
    """Describe a redirect URI so that a user recognizes who gets access."""
    parts = urlsplit(redirect_uri)
    if parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return "a program on this computer"
    return parts.netloc if parts.scheme == "https" else f"the app that opens {parts.scheme}: links"


def _headers(redirect_uri: str) -> dict[str, str]:
    parts = urlsplit(redirect_uri)
    # Browsers check form-action for the form's own target and for its redirects.
    target = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"
    policy = (
        f"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' {target if redirect_uri else ''}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
