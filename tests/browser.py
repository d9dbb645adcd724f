"""Chromium without a window: loads a page, says what is to be seen in it, and takes its picture.

It speaks the browser's own protocol (https://chromedevtools.github.io/devtools-protocol/) over its debugging socket.
"""

import asyncio
import base64
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import aiohttp

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_S = 120.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions")

Colours = Literal["light", "dark"]


class Browser:
    """A tab of a browser that runs.

    Attributes:
        requested: addresses that its pages asked for.
        complaints: errors that its console showed.
    """

    def __init__(self, session: aiohttp.ClientWebSocketResponse) -> None:
        self._session = session
        self._number = 0
        self.requested: list[str] = []
        self.complaints: list[str] = []

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self._number += 1
        await self._session.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def _next(self) -> dict[str, Any]:
        message: dict[str, Any] = await self._session.receive_json(timeout=WAIT_S)
        if message.get("method") == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(message["params"]["entry"]["text"])
        return message

    async def open(self, url: str, *, width: int = 1100, height: int = 900, colours: Colours = "light") -> None:
        """Load a page on a screen of that size."""
        await self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        await self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": colours}])
        for domain in ("Page", "Network", "Log"):
            await self.command(f"{domain}.enable")
        await self.command("Page.navigate", url=url)
        async with asyncio.timeout(WAIT_S):
            await self.see(LOADED)

    async def see(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def picture(self, path: Path, *, height_max: int = 4000) -> None:
        """Take a picture of the whole page, PNG."""
        height = min(height_max, int(await self.see("document.documentElement.scrollHeight")))
        width = int(await self.see("innerWidth"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await self.command("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))

    async def contrast(self, selector: str) -> float:
        """The contrast of an element's text with what lies behind it, as WCAG counts it."""
        return float(await self.see(f"({CONTRAST})({json.dumps(selector)})"))


LOADED = (
    "new Promise(done => document.readyState === 'complete' ? done(true) : addEventListener('load', () => done(true)))"
)

CONTRAST = """selector => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(selector);
  let behind = element;
  while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
  const one = light(getComputedStyle(element).color), other = light(getComputedStyle(behind).backgroundColor);
  return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
}"""


@contextlib.asynccontextmanager
async def browsing(profile: Path) -> AsyncIterator[Browser]:
    """Run a browser with a profile of its own."""
    assert PROGRAM, "chromium is not installed: `make setup` does"
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *FLAGS,
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        port = await _port(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as http:
            async with http.get(f"http://127.0.0.1:{port}/json/list") as answer:
                tabs = await answer.json(content_type=None)
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            async with http.ws_connect(url, max_msg_size=64 << 20) as session:
                yield Browser(session)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _port(path: Path) -> int:
    """The port that it listens on, once it has written it down."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(OSError, IndexError, ValueError):
                return int((await asyncio.to_thread(path.read_text)).splitlines()[0])
            await asyncio.sleep(0.05)
