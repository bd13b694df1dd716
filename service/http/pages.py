"""Pages for people. What a page may load and run stands in its headers: its own, and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib

from fastapi.responses import HTMLResponse


def page(html: str, **sources: str) -> HTMLResponse:
    """A page with the headers that `page_headers` gives for its sources."""
    return HTMLResponse(html, headers=page_headers(**sources))


def page_headers(**sources: str) -> dict[str, str]:
    """What the browser is told about a page.

    Args:
        sources: what it needs beyond itself, by directive of a content security policy with underscores, such as
            ``style_src="'self'"``; everything else is forbidden.
    """
    directives = {"default_src": "'none'", "base_uri": "'none'", "form_action": "'none'", "frame_ancestors": "'none'"}
    policy = "; ".join(f"{name.replace('_', '-')} {value}" for name, value in (directives | sources).items())
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }


def inline(text: str) -> str:
    """The source of a style or a script that stands in the page itself."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
