"""Debian's Chromium through Playwright, on a page that is signed in; what must never happen on any page is noted."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from harness.daemon_process import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page

    from harness.daemon_process import DaemonProcess

WIDE = (1280, 720)
PHONE = (390, 844)


def chromium() -> str:
    """Path of the browser. Where there is none a test is skipped, and fails where `CI` is set: it must not go missing there."""
    found = shutil.which(os.environ.get("GRADWATCH_TEST_CHROMIUM", "chromium"))
    if found is None:
        why = "there is no chromium on this machine (Debian: apt install chromium)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


@contextmanager
def launched() -> Iterator[Browser]:
    """One browser without a window."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Opened:
    """A page and what it did: requests to other hosts, errors of scripts, violations of the policy."""

    page: Page
    context: BrowserContext
    url: str
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def go(self, route: str, ready: str = "#sentence") -> Page:
        """Show a page of the dashboard and wait for a part of it."""
        self.page.goto(f"{self.url}/#{route}")
        self.page.wait_for_selector(ready)
        return self.page

    def until(self, expression: str) -> None:
        """Wait until an expression is true on the page. (The policy of the page forbids what Playwright has for this.)"""
        wait_for(lambda: self.page.evaluate(expression), expression, 15.0)


@contextmanager
def opened(
    browser: Browser, daemon: DaemonProcess, *, token: str | None = None, size: tuple[int, int] = WIDE, **options: Any
) -> Iterator[Opened]:
    """A fresh context signed in with `token` (the owner's; '' for none), looked through at the end for what must not happen."""
    url = daemon.connection.url
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, reduced_motion="reduce", **options)
    try:
        given = daemon.token if token is None else token
        if given:
            answer = context.request.post(f"{url}/session", headers={"Authorization": f"Bearer {given}", "Origin": url})
            assert answer.status == 204, answer.text()
        page = context.new_page()
        page.set_default_timeout(15_000)
        found = Opened(page, context, url)
        page.on("request", lambda request: found.elsewhere.append(request.url) if _away(request.url, url) else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("console", lambda said: found.errors.append(said.text) if _is_fault(said.type, said.text) else None)
        yield found
        assert found.elsewhere == []
        assert found.errors == []
    finally:
        context.close()


def _away(address: str, url: str) -> bool:
    return not address.startswith((url, "data:", "blob:"))


def _is_fault(kind: str, text: str) -> bool:
    """An answer of 4xx or 5xx and a connection that broke are told by the browser too; the page shows them, and tests look."""
    return kind == "error" and "Failed to load resource" not in text and "net::ERR" not in text
