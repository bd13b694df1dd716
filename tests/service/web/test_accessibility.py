from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.service.web.browser import PHONE, WIDE, Playground, opened

TEXT = "a fast web server"


def violations(playground: Playground) -> str:
    """What axe finds, by rule, with the places; empty where it finds nothing."""
    found = Axe().run(playground.page)
    return str(found.generate_report()) if found.violations_count else ""


@pytest.mark.parametrize(("viewport", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_axe_finds_nothing(browser: Browser, url: str, viewport: dict[str, int], scheme: str) -> None:
    with opened(browser, url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce") as playground:
        playground.open()
        assert violations(playground) == ""
        playground.page.get_by_label("Compare with").select_option("titles")
        playground.page.get_by_label("Explain").check()
        playground.ask(TEXT, 5)
        playground.unfold()
        assert violations(playground) == ""
        playground.may_be_refused = True
        playground.page.get_by_label("Labels (k)").fill("1000")
        expect(playground.columns.first).to_contain_text("expected at most 100")
        assert violations(playground) == ""
        playground.screenshot(f"refused-{scheme}")
        playground.check()
