"""The OAuth sign-in page, where a user enters a key: one form, no scripts, no external resources."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from starlette.responses import HTMLResponse, Response

STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0; background: #f4f5f7; color: #1c1e21; }
main { max-width: 26rem; margin: 8vh auto; padding: 2rem; background: #fff; border-radius: .75rem;
  box-shadow: 0 1px 4px rgb(0 0 0 / .15); }
h1 { font-size: 1.25rem; margin: 0 0 1rem; overflow-wrap: anywhere; }
strong { overflow-wrap: anywhere; }
label { display: block; font-weight: 600; margin: 1.25rem 0 .25rem; }
input { box-sizing: border-box; width: 100%; font: inherit; padding: .5rem .6rem; border: 1px solid #8a8f98;
  border-radius: .4rem; background: #fff; color: inherit; }
p.error { background: #fdecea; color: #8c1d18; padding: .6rem .8rem; border-radius: .4rem; }
div { display: flex; gap: .75rem; margin-top: 1.25rem; }
button { font: inherit; padding: .5rem 1rem; border-radius: .4rem; border: 1px solid #8a8f98; background: #fff;
  color: inherit; cursor: pointer; }
button.main { background: #1a56c4; border-color: #1a56c4; color: #fff; }
section { font-size: .875rem; color: #5b616a; }
ul { padding-left: 1.25rem; margin: .5rem 0; }
a { color: inherit; overflow-wrap: anywhere; }
small { color: #5b616a; display: block; margin-top: 1.25rem; }
p.error small { color: inherit; display: inline; }
@media (prefers-color-scheme: dark) {
  body { background: #17191c; color: #e6e8eb; } main, input, button { background: #22252a; }
  small, section { color: #a3a9b3; } p.error { background: #4a1f1c; color: #ffd9d5; }
}
"""


def sign_in_page(
    *, app: str, redirect_uri: str, relay: str, parameters: Mapping[str, str], error: str = "", status: int = 200
) -> Response:
    """Render the form, which posts `parameters` with the key. All of them are untrusted."""
    hidden = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in parameters.items()
    )
    problem = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
    target = where_to(redirect_uri)
    nonce = secrets.token_urlsafe(16)
    content = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in – session-relay</title>
<style nonce="{nonce}">{STYLE}</style>
</head>
<body>
<main>
<h1>Sign in to {escape(relay)}</h1>
<p>An app named “{escape(app)}” requests access. Access goes to <strong>{escape(target)}</strong>.</p>
{problem}
<form method="post" action="/oauth/sign-in" autocomplete="off">
{hidden}
<label for="key">API key</label>
<input id="key" name="key" type="password" autofocus spellcheck="false" placeholder="srk_…" maxlength="200"
 aria-describedby="rights">
<section id="rights">
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
<div><button class="main" name="answer" value="allow">Allow</button>
<button name="answer" value="deny">Cancel</button></div>
</form>
<small>The app chose its name itself. If you did not just ask it to connect, or do not recognize
{escape(target)}, cancel. The app never sees the key.</small>
</main>
</body>
</html>
"""
    return HTMLResponse(content, status, headers=_headers(redirect_uri, nonce))


def refusal_page(message: str, *, code: str = "", back: str = "") -> Response:
    """Render an error in an app's request, with its OAuth error `code`. `back` is the redirect URI: the page has a
    link to it, but does not redirect."""
    nonce = secrets.token_urlsafe(16)
    name = f" <small>({escape(code)})</small>" if code else ""
    link = f'<a href="{escape(back)}" rel="noreferrer">Return to {escape(where_to(back))}</a>' if back else ""
    content = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sign in – session-relay</title>
<style nonce="{nonce}">{STYLE}</style>
</head>
<body>
<main>
<h1>Sign-in failed</h1>
<p class="error" role="alert">{escape(message)}{name}</p>
<p>Start again from the app. If you followed a link to get here, close this page.</p>
<p>{link}</p>
</main>
</body>
</html>
"""
    return HTMLResponse(content, 400, headers=_headers("", nonce))


def where_to(redirect_uri: str) -> str:
    """Describe a redirect URI so that a user recognizes who gets access."""
    parts = urlsplit(redirect_uri)
    if parts.hostname in ("localhost", "127.0.0.1", "::1"):
        return "a program on this computer"
    return parts.netloc if parts.scheme == "https" else f"the app that opens {parts.scheme}: links"


def _headers(redirect_uri: str, nonce: str) -> dict[str, str]:
    parts = urlsplit(redirect_uri)
    # Browsers check form-action for the form's own target and for its redirects.
    target = f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") else f"{parts.scheme}:"
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self' {target if redirect_uri else ''}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
