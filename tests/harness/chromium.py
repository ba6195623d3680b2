"""A real Chromium, driven over its DevTools protocol: pages are opened, clicked, read and photographed.

Debian's ``chromium`` is enough: the protocol is JSON over a websocket, which aiohttp already speaks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

_START_S = 90.0
_ANSWER_S = 60.0


class Page:
    """One tab.

    requests   every address that it asked for
    complaints what its console said of errors, refused content and uncaught exceptions
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._reader = asyncio.create_task(self._read())
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = next(self._ids)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        answer = await asyncio.wait_for(self._waiting[number], _ANSWER_S)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> None:
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.send(f"{domain}.enable")
        await self.send("Page.navigate", url=url)

    async def show_as(self, width: int, height: int, *, scale: float = 1.0, mobile: bool = False, **media: str) -> None:
        """Screen size in CSS pixels, and media features by name with _ for -, e.g. prefers_color_scheme="dark"."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )
        await self.send("Emulation.setTouchEmulationEnabled", enabled=mobile)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        await self.send("Emulation.setEmulatedMedia", features=features)

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait_for(self, script: str, within_s: float = 45.0) -> Any:
        """Evaluate until it gives something true; that."""
        deadline = asyncio.get_running_loop().time() + within_s
        while True:
            value = await self.evaluate(script)
            if value:
                return value
            assert asyncio.get_running_loop().time() < deadline, f"not within {within_s:g} s: {script}"
            await asyncio.sleep(0.05)

    async def text(self, selector: str) -> str:
        """What a person reads there."""
        read: str = await self.wait_for(f"document.querySelector({json.dumps(selector)})?.innerText")
        return read

    async def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first match, scrolled into view; whatever lies there gets it."""
        place = await self.wait_for(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            "return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    async def press(self, key: str, **more: Any) -> None:
        """A key by its name: Tab, Enter, ArrowLeft, or a character."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            told = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), **more}
            if text and kind == "keyDown":
                told["text"] = text
            await self.send("Input.dispatchKeyEvent", type=kind, **told)

    async def screenshot(self) -> bytes:
        """What is visible, as a PNG."""
        return base64.b64decode((await self.send("Page.captureScreenshot", format="png"))["data"])

    async def close(self) -> None:
        self._reader.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()

    async def _read(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._waiting.pop(said["id"]).set_result(said)
            else:
                self._hear(said["method"], said["params"])

    def _hear(self, event: str, told: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif event == "Log.entryAdded" and told["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and told["type"] in {"error", "warning"}:
            self.complaints.append(str(told["args"]))


def find_chromium() -> str:
    """The browser's path; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium here: apt-get install chromium")


@contextlib.asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Callable[[], Awaitable[Page]]]:
    """A browser with a profile of its own in ``folder``; yields a function that opens an empty tab."""
    process = await asyncio.create_subprocess_exec(
        find_chromium(),
        "--headless=new",
        "--no-sandbox",  # CI runs as root, which its sandbox refuses; it sees our own page alone
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--force-color-profile=srgb",
        "--no-first-run",
        "--disable-background-networking",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    pages: list[Page] = []
    try:
        port = await _port(folder / "DevToolsActivePort", process)
        async with aiohttp.ClientSession() as session:

            async def open_tab() -> Page:
                async with session.put(f"http://127.0.0.1:{port}/json/new?about:blank") as answer:
                    address = (await answer.json())["webSocketDebuggerUrl"]
                page = Page(await session.ws_connect(address, max_msg_size=0))
                pages.append(page)
                return page

            yield open_tab
            for page in pages:
                await page.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _port(told: Path, process: asyncio.subprocess.Process) -> int:
    deadline = asyncio.get_running_loop().time() + _START_S
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            pytest.fail(f"Chromium ended with {process.returncode}")
        with contextlib.suppress(FileNotFoundError, IndexError):
            return int((await asyncio.to_thread(told.read_text)).splitlines()[0])
        await asyncio.sleep(0.05)
    pytest.fail(f"Chromium did not answer within {_START_S:g} s")
