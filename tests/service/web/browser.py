"""The playground in headless Chromium, with everything that a page may do wrong unseen kept for the test to look at."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

SCREENSHOTS = Path(os.environ.get("SCREENSHOTS", Path(__file__).parents[3] / "build" / "screenshots"))

WIDE = {"width": 1000, "height": 800}
PHONE = {"width": 360, "height": 740}

NO_CHROMIUM = "the page is tried in Chromium, and none is on the path; on Debian: apt-get install chromium"

# Machines that run tests do much else; a test that holds takes none of it.
PATIENCE_MS = 60_000

# The browser says so of every answer above 399, wanted ones too.
REFUSED = re.compile(r"the server responded with a status of \d+")


@dataclass
class Playground:
    """The page of a service, open in a browser.

    Attributes:
        page: of the browser.
        url: of the service.
        requests: all that the page has sent.
        complaints: errors and warnings of the console, exceptions, violations of the page's policy.
        may_be_refused: whether answers above 399 are part of the test.
    """

    page: Page
    url: str
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    may_be_refused: bool = False

    def __post_init__(self) -> None:
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._hear)

    def open(self, fragment: str = "") -> None:
        """Open the page and wait until it knows the models."""
        self.page.goto(f"{self.url}/{fragment}")
        expect(self.status).not_to_be_empty()

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def query(self) -> Locator:
        return self.page.locator("#query")

    @property
    def columns(self) -> Locator:
        return self.page.locator("#results > section")

    def ids(self, column: int = 0) -> list[str]:
        """The ids of the labels that are shown."""
        return self.columns.nth(column).locator("ol > li .id").all_inner_texts()

    def wait_for_labels(self, count: int, column: int = 0) -> list[str]:
        """Wait until so many labels are shown and nothing is asked for."""
        self.settle()
        expect(self.columns.nth(column).locator("ol > li")).to_have_count(count)
        return self.ids(column)

    def settle(self) -> None:
        """Wait until what the form says is what is shown."""
        expect(self.page.locator("#results")).to_have_attribute("aria-busy", "false")

    def ask(self, text: str, count: int) -> list[str]:
        """Write a text and wait for its labels, as many as the test expects."""
        with self.page.expect_response("**/predict"):
            self.query.fill(text)
        return self.wait_for_labels(count)

    def unfold(self) -> None:
        """Open everything that can be opened."""
        self.page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")

    def asked(self) -> list[Any]:
        """The bodies of all requests for labels."""
        return [request.post_data_json for request in self.requests if request.url.endswith("/predict")]

    def screenshot(self, name: str) -> None:
        """Leave a picture for people."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")

    def check(self) -> None:
        """Nothing was asked of anybody else, and the browser had nothing to say."""
        strangers = [sent.url for sent in self.requests if not sent.url.startswith((f"{self.url}/", "data:"))]
        assert strangers == []
        assert self.complaints == []

    def _note(self, request: Request) -> None:
        self.requests.append(request)

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if not (self.may_be_refused and REFUSED.search(message.text)):
            self.complaints.append(message.text)


@contextmanager
def launched(chromium: str) -> Iterator[Browser]:
    """Chromium; `chromium` is where it is."""
    # In containers there is no namespace for its sandbox, and little shared memory.
    arguments = ("--no-sandbox", "--disable-dev-shm-usage")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Playground]:
    """A tab of its own, which is not yet at the page."""
    context = browser.new_context(**{"viewport": WIDE, **options})
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=url)
    try:
        yield Playground(context.new_page(), url)
    finally:
        context.close()
