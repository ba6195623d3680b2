"""The live page in a real Chromium: clicked, typed into, read and photographed, while a plant goes on behind it."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import Page, chromium
from live_plant import LivePlant
from PIL import Image

from models.datasets import Recording
from models.evaluate import Event
from stream.actions import Action
from stream.labels import Label
from stream.operating import LineSettings
from stream.plan import Plan, QualitySettings, load_plan
from stream.records import Alert, Diagnosis, Output

pytestmark = pytest.mark.browser

TOKEN = "0123456789abcdef"
MakeRecording = Callable[..., Recording]
DRAWN = """[...document.querySelectorAll('canvas')].map(canvas => {
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set(); for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200)
    seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]); return seen.size; })"""


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with chromium(tmp_path / "profile") as open_tab:
        tab = await open_tab()
        await tab.send("Emulation.setTimezoneOverride", timezoneId="UTC")
        await tab.send("Emulation.setFocusEmulationEnabled", enabled=True)
        await tab.show_as(1440, 1000)
        yield tab
        assert tab.complaints == []


@asynccontextmanager
async def serving(plant: LivePlant, page: Page) -> AsyncIterator[None]:
    """The plant's page is served; at the end the browser leaves it first, so that it does not ask in vain."""
    await plant.start()
    yield
    await page.send("Page.navigate", url="about:blank")
    await plant.stop()


@pytest.fixture
async def plant(page: Page, plan: Plan, make_recording: MakeRecording) -> AsyncIterator[LivePlant]:
    """Three pumps of which one has a fault after five minutes; a minute has passed."""
    recordings = [make_recording(f"pump-{number}", seed=number) for number in (1, 3)]
    recordings.insert(1, make_recording("pump-2", seed=2, fault=(300, 330)))
    made = LivePlant(plan, recordings)
    made.play(60)
    async with serving(made, page):
        yield made


async def test_a_fault_is_seen_from_its_beginning_to_its_end(page: Page, plant: LivePlant) -> None:
    await page.open(f"{plant.url}/")
    assert "Nothing is open" in await page.text("#no-alerts")
    assert (await page.text("#counts [data-state=normal]")).split() == ["3", "normal"]
    assert await page.evaluate("document.title") == "Headrace north"

    plant.play(245)
    await page.wait_for("document.querySelectorAll('#alerts a').length")
    assert "pump-2" in await page.text("#alerts")
    assert "heat" in await page.text("#alerts .why")
    assert await page.evaluate("document.title") == "(2) Headrace north"  # one of each detector
    spoken = await page.evaluate("document.querySelector('#announce').textContent")
    assert spoken.startswith("New ")
    assert "pump-2, heat" in spoken

    await page.click("#alerts a")
    assert await page.text("#asset-name") == "pump-2"
    assert await page.evaluate("document.activeElement.id") == "asset-name"
    assert "heat was 8" in await page.text("#asset-alerts")
    assert "Live, " in await page.text("#link")
    assert await page.wait_for("document.querySelectorAll('#signals figure').length") == 3
    assert min(await page.evaluate(DRAWN)) > 20
    label = await page.evaluate("document.querySelector('#signals canvas').getAttribute('aria-label')")
    assert label.startswith("heat, ")
    assert "expected" in label
    assert "outside the expected band in" in label
    shares = await page.text("#shares")
    assert shares.splitlines()[0] == "heat"

    before = await page.text("#signals .now")
    plant.play(20)
    await page.wait_for(f"document.querySelector('#signals .now').innerText !== {before!r}")
    plant.play(120)
    await page.wait_for("document.querySelector('#asset-alerts').childElementCount === 0")
    assert "open" not in await page.text("#history tbody")
    assert (await page.text("#asset-state")).strip() == "normal"

    await page.click("#table-details summary")
    assert (await page.text("#rows thead")).split("\t")[:2] == ["Time", "Score / threshold"]
    assert await page.evaluate("document.querySelectorAll('#rows tbody tr').length") == 30
    assert {request.split("/page/")[0].split("/api/")[0].rstrip("/") for request in page.requests} == {plant.url}


async def test_all_of_it_can_be_reached_with_the_keyboard(page: Page, plant: LivePlant) -> None:
    plant.play(245)
    await page.open(f"{plant.url}/")
    await page.wait_for("document.querySelectorAll('#alerts a').length")
    focused = "document.activeElement.innerText.trim().split('\\n')[0] || document.activeElement.id"
    order = []
    for _ in range(13):
        await page.press("Tab")
        order.append(await page.evaluate(focused))
    assert order[:3] == ["Skip to open alerts", "Headrace", "Hold"]
    assert order[-4:] == ["query", "pump-2", "pump-1", "pump-3"]
    assert order[7:9] == ["pump-2", "pump-2"]  # its two alerts
    # the focus can be seen
    assert await page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    await page.press("Enter")
    assert await page.text("#asset-name") == "pump-3"
    await page.wait_for("!!document.querySelector('#signals canvas')")
    await page.evaluate("document.querySelector('#signals canvas').focus()")
    for _ in range(3):
        await page.press("ArrowLeft")
    moved = await page.text("#signals .aside")
    assert moved[2] == ":"
    await page.press("ArrowLeft", modifiers=8)
    assert await page.text("#signals .aside") < moved  # earlier
    assert (await page.text("#shares-when")).startswith("then")
    await page.press("Escape")
    assert (await page.text("#shares-when")).startswith("now")


async def test_assets_are_found_by_name_and_by_state(page: Page, plant: LivePlant) -> None:
    plant.play(245)
    await page.open(f"{plant.url}/")
    listed = "[...document.querySelectorAll('#assets .name')].map(e => e.innerText).join()"
    await page.wait_for(f"{listed} === 'pump-2,pump-1,pump-3'")
    await page.click("#counts [data-state=normal]")
    await page.wait_for(f"{listed} === 'pump-1,pump-3'")
    assert await page.evaluate("document.querySelector('[aria-pressed=true]').dataset.state") == "normal"
    await page.click("#counts [data-state=normal]")
    await page.click("#query")
    for key in "MP-3":
        await page.press(key)
    await page.wait_for(f"{listed} === 'pump-3'")
    await page.press("x")
    assert "No asset has that in its name" in await page.wait_for(
        "!document.querySelector('#more-assets').hidden && document.querySelector('#more-assets').innerText"
    )


async def test_held_it_stands_still_and_a_lost_worker_is_told(page: Page, plant: LivePlant) -> None:
    await page.open(f"{plant.url}/#/asset/pump-1")
    before = await page.text("#asset-newest")
    await page.click("#hold")
    await page.wait_for("document.querySelector('#link').innerText === 'Held'")
    asked = len(page.requests)
    plant.play(30)
    await asyncio.sleep(2.5)
    assert len(page.requests) <= asked + 2  # of each question one may have been on its way
    assert await page.text("#asset-newest") == before
    await page.click("#hold")
    await page.wait_for(f"document.querySelector('#asset-newest').innerText !== {before!r}")
    await plant.stop()
    assert "No answer from the worker" in await page.wait_for(
        "document.querySelector('#link').dataset.link === 'lost' && document.querySelector('#link').innerText"
    )
    await plant.start()
    await page.wait_for("document.querySelector('#link').dataset.link === 'live'")
    page.complaints.clear()  # the browser says itself that the connection was refused


async def test_an_operator_acts_on_an_alert_with_the_keyboard_and_a_token(
    page: Page, plan: Plan, make_recording: MakeRecording, tmp_path: Path
) -> None:
    recording = make_recording("pump-2", seed=2)
    recording.values[300:, 1] += np.where(np.arange(300) % 2, 12.0, -12.0)
    plant = LivePlant(plan, [recording], token=TOKEN)
    plant.play(345)
    async with serving(plant, page):
        await page.open(f"{plant.url}/#/asset/pump-2")
        await page.wait_for("document.querySelectorAll('.deeds').length === 2")
        await page.wait_for("!document.querySelector('#sign').hidden")
        assert await page.evaluate("document.querySelectorAll('.buttons:not([hidden])').length") == 0
        await sign_on(page, "anna", "x" * len(TOKEN))
        await page.evaluate("document.querySelector('[data-deed=ack]').click()")
        assert "the token is not right" in await page.wait_for(
            "document.querySelector('#acted').innerText.startsWith('Not') && document.querySelector('#acted').innerText"
        )
        page.complaints.clear()  # the browser says itself that it was refused
        assert plant.written == []

        await page.wait_for("!document.querySelector('#sign').hidden")
        await sign_on(page, "anna", TOKEN)
        await page.evaluate("document.querySelector('#comment').focus()")
        for key in "seen":
            await page.press(key)
        await page.evaluate("document.querySelector('[data-deed=ack]').focus()")
        await page.press("Enter")
        await page.wait_for("document.querySelector('.standing').innerText === 'Acknowledged by anna.'")
        assert "acknowledged by anna: seen" in await page.text(".life")
        assert (await page.text("#acted")).startswith("Acknowledged: pump-2, ")
        (ack,) = plant.written
        assert isinstance(ack, Action)
        assert (ack.action, ack.asset, ack.by, ack.comment) == ("ack", "pump-2", "anna", "seen")
        await page.wait_for("document.querySelector('#alerts').innerText.includes('Acknowledged by anna')")

        await page.click("[data-deed=shelve]")
        await page.wait_for("!!document.querySelector('[data-deed=unshelve]')")
        await page.click("[data-deed=false_alarm]")
        await page.wait_for("document.querySelector('.standing').innerText.includes('threshold moved to')")
        await page.show_as(1280, 900)
        folder = Path(os.environ.get("HEADRACE_PICTURES", tmp_path))
        picture = await photograph(page, folder / "page-acting.png")
        assert picture.size == (1280, 900)
        await page.send("Accessibility.enable")
        nodes = (await page.send("Accessibility.getFullAXTree"))["nodes"]
        said = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
        assert {("group", "Act on the alert of quick"), ("group", "Act on the alert of slow")} <= set(said)
        assert {("button", "Resolve"), ("button", "True fault"), ("button", "Unshelve")} <= set(said)
        assert [role for role, name in said if role in {"button", "textbox"} and not name] == []
        await page.click("[data-deed=resolve]")
        await page.wait_for("document.querySelectorAll('.deeds').length === 1")
        assert [held.action for held in plant.written if isinstance(held, Action)] == ["ack", "shelve", "resolve"]
        await page.click("#history [data-deed=true]")  # what it was can be said when it is over
        await page.wait_for("document.querySelector('#acted').innerText.startsWith('Labelled a fault')")
        assert [held.verdict for held in plant.written if isinstance(held, Label)] == ["false_alarm", "true"]


async def sign_on(page: Page, name: str, token: str) -> None:
    for field, text in (("#by", name), ("#token", token)):
        await page.evaluate(f"document.querySelector('{field}').value = ''")
        await page.evaluate(f"document.querySelector('{field}').focus()")
        for key in text:
            await page.press(key)
    await page.press("Enter")
    await page.wait_for("document.querySelectorAll('.buttons:not([hidden])').length")


async def test_alerts_that_came_together_are_one_incident_with_where_to_look_first(
    page: Page, plan: Plan, make_recording: MakeRecording, make_alert: Callable[..., Alert], tmp_path: Path
) -> None:
    line = LineSettings(assets=("mixer-1", "pump-*"), tie_s=2)
    lined = plan.model_copy(update={"lines": {"north": line}})
    recordings = [
        make_recording("pump-1", seed=1, fault=(312, 420)),
        make_recording("pump-2", seed=2, fault=(300, 420)),
    ]
    recordings.append(make_recording("pump-3", seed=3))
    plant = LivePlant(lined, recordings)
    plant.play(60)
    async with serving(plant, page):
        await page.open(f"{plant.url}/")
        assert "Nothing is open" in await page.text("#no-alerts")
        assert await page.evaluate("document.querySelector('#incidents-part').hidden")
        plant.play(260)
        members = "document.querySelectorAll('#incidents .alerts > li').length"
        await page.wait_for(f"{members} === 4")  # two detectors, two pumps
        assert "Line north: 4 alerts of 2 assets" in await page.text("#incidents h3")
        assert await page.text("#incidents .first") == "Look first at pump-2: heat. Its alert began first."
        first = await page.text("#incidents .alerts > li")
        assert first.startswith("pump-2")
        assert await page.evaluate("document.querySelectorAll('#alerts li').length") == 0
        assert await page.text("#no-alerts") == "All that is open is part of the incidents above."
        assert "look first at pump-2 (heat)" in await page.evaluate("document.querySelector('#announce').textContent")

        # one that another worker has published: it is told of, and cannot be looked at here
        began = recordings[0].at_ms[290] / 1000
        stamp = datetime.fromtimestamp(began, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        plant.incidents.take([make_alert(asset="mixer-1", onset=stamp, opened=stamp, last_seen=stamp)])
        await page.wait_for(f"{members} === 5")
        assert await page.text("#incidents .first") == "Look first at mixer-1: heat. Its alert began first."
        assert "Watched by another worker" in await page.text("#incidents .more")
        assert await page.evaluate("document.querySelector('#incidents .first a').getAttribute('href')") is None

        await page.send("Accessibility.enable")
        nodes = (await page.send("Accessibility.getFullAXTree"))["nodes"]
        said = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
        assert any(role == "region" and name.casefold() == "incidents 1" for role, name in said)
        assert any(role == "heading" and name.startswith("Line north: 5 alerts of 3 assets") for role, name in said)
        assert any(role == "list" and name.startswith("Line north: 5 alerts") for role, name in said)
        await page.show_as(1280, 900)
        picture = await photograph(page, Path(os.environ.get("HEADRACE_PICTURES", tmp_path)) / "page-incident.png")
        assert picture.size == (1280, 900)

        await page.evaluate("document.querySelector('#incidents .alerts a[href]').focus()")
        await page.press("Enter")
        assert await page.text("#asset-name") == "pump-2"
        await page.wait_for(
            "document.querySelector('#incidents .alerts a[aria-current]').innerText.startsWith('pump-2')"
        )
        plant.play(240)
        await page.wait_for("document.querySelectorAll('#asset-alerts .told').length === 0")


async def test_that_an_asset_sends_nothing_is_acknowledged_like_any_other_alert(
    page: Page, plan: Plan, make_recording: MakeRecording
) -> None:
    asking = plan.model_copy(update={"quality": QualitySettings(stale_after_periods=20)})
    recordings = [make_recording("pump-1", seed=1), make_recording("pump-2", rows=60, seed=2)]
    plant = LivePlant(asking, recordings, token=TOKEN)
    plant.play(120)
    async with serving(plant, page):
        await page.open(f"{plant.url}/#/asset/pump-2")
        await page.wait_for("document.querySelectorAll('.deeds').length === 1")
        await sign_on(page, "anna", TOKEN)
        assert await page.evaluate("[...document.querySelectorAll('[data-deed]')].map(e => e.dataset.deed).join()") == (
            "ack,shelve,resolve"  # a label would move nothing
        )
        await page.click("[data-deed=ack]")
        await page.wait_for("document.querySelector('.standing').innerText === 'Acknowledged by anna.'")
        await page.click("[data-deed=resolve]")
        await page.wait_for("document.querySelectorAll('.deeds').length === 0")
        assert [held.action for held in plant.written if isinstance(held, Action)] == ["ack", "resolve"]


async def test_without_a_token_in_the_settings_the_page_only_shows(page: Page, plant: LivePlant) -> None:
    plant.play(245)
    await page.open(f"{plant.url}/#/asset/pump-2")
    await page.wait_for("document.querySelectorAll('.deeds').length")
    assert await page.evaluate("document.querySelector('#acting').hidden")


async def test_an_alert_of_the_data_and_a_diagnosis_are_told_in_words(
    page: Page, plant: LivePlant, make_alert: Callable[..., Alert]
) -> None:
    likely = (Diagnosis("worn_bearing", 0.82), Diagnosis("unknown", 0.18))
    plant.board.take(Output(alerts=(make_alert(diagnosis=likely), make_alert(id="b", verdict="stuck", causes=()))))
    await page.open(f"{plant.url}/#/asset/pump-1")
    told = await page.text("#asset-alerts")
    assert "looks like worn bearing (82\u00a0%)" in told
    assert "stuck sensor, says pumps" in told
    assert "heat was 91.00, expected" not in told  # an alert without a band says none


async def test_names_from_outside_stay_text(page: Page, plan: Plan, make_recording: MakeRecording) -> None:
    name = "pump-<img src=x onerror=document.title='gone'>&\"'/ 100%"
    plant = LivePlant(plan, [make_recording(name, fault=(40, 80))])
    plant.play(60)
    async with serving(plant, page):
        await page.open(f"{plant.url}/")
        await page.click("#alerts a")
        assert await page.text("#asset-name") == name
        await page.wait_for("!!document.querySelector('#signals canvas')")
        assert await page.evaluate("document.querySelectorAll('img').length") == 0
        assert name in await page.evaluate("document.title")
        await page.evaluate("location.hash = '#/asset/%ff'")
        await page.wait_for("document.querySelector('#detail').hidden")
        await page.evaluate("location.hash = '#/asset/nobody'")
        assert "knows nothing of this asset" in await page.wait_for(
            "!document.querySelector('#no-rows').hidden && document.querySelector('#no-rows').innerText"
        )
    page.complaints.clear()  # the browser says itself that this was not found


async def test_fits_a_phone_in_light_and_dark_and_keeps_still_where_asked(page: Page, plant: LivePlant) -> None:
    plant.play(245)
    await page.show_as(360, 740, scale=2, mobile=True, prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    await page.open(f"{plant.url}/")
    too_wide = "document.documentElement.scrollWidth - innerWidth"
    await page.wait_for("document.querySelectorAll('#alerts a').length")
    assert await page.evaluate(too_wide) <= 0
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 18, 22)"
    small = "[...document.querySelectorAll('#alerts a, #assets a, #counts button, #hold')].map(e => e.offsetHeight)"
    assert min(await page.evaluate(small)) >= 30
    await page.click("#alerts a")
    await page.wait_for("document.querySelectorAll('#signals canvas').length === 3")
    assert await page.evaluate(too_wide) <= 0
    assert await page.evaluate("getComputedStyle(document.querySelector('#shares i')).transitionProperty") == "none"
    assert await page.evaluate("document.querySelector('.list').offsetHeight") == 0  # one thing at a time
    await page.click(".back a")
    await page.wait_for("document.querySelector('#detail').hidden")
    assert await page.evaluate("document.activeElement.getAttribute('href')") == "#/asset/pump-2"


async def test_a_screen_reader_finds_names_and_regions(page: Page, plant: LivePlant) -> None:
    plant.play(245)
    await page.open(f"{plant.url}/#/asset/pump-2")
    await page.wait_for("document.querySelectorAll('#signals canvas').length === 3")
    await page.send("Accessibility.enable")
    nodes = (await page.send("Accessibility.getFullAXTree"))["nodes"]
    said = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    roles = {role for role, _ in said}
    assert {"banner", "main", "article", "heading", "button", "link", "log", "table", "radio", "image"} <= roles
    nameless = [role for role, name in said if role in {"button", "link", "image", "radio", "searchbox"} and not name]
    assert nameless == []
    assert ("heading", "pump-2") in said
    assert any(role == "image" and name.startswith("Score over threshold by ") for role, name in said)


@pytest.mark.slow  # trains three detectors of the simulated pumps
@pytest.mark.timeout(600)
@pytest.mark.tensorflow
async def test_the_pictures_of_the_readme(page: Page, tmp_path: Path) -> None:
    """With HEADRACE_PICTURES=docs/images (``make pictures``) they are written there; any run looks at them."""
    from models.simulate import UNITS, Plant
    from stream.commands.train import train_plan

    simulated = Plant(7, compressors=0, exchangers=0, pumps=12)
    deep = 'assets = ["pump-*"]\nfalse_alarms_per_day = 0.25\noff_delay_s = 300.0\nconfig = { epochs = 12 }'
    (tmp_path / "headrace.toml").write_text(
        "[units]\n"
        + "".join(f'{name} = "{unit}"\n' for name, unit in UNITS.items())
        + f'[detectors.pump-forecast]\nkind = "lstm_forecaster"\nartifact = "forecast"\n{deep}\n'
        + f'[detectors.pump-rebuild]\nkind = "dense_autoencoder"\nartifact = "rebuild"\n{deep}\n'
        + '[detectors.pump-quality]\nkind = "data_quality"\nartifact = "quality"\nassets = ["pump-*"]\n'
    )
    plan = load_plan(tmp_path / "headrace.toml")
    await asyncio.to_thread(train_plan, plan, simulated.history(2400), seed=7)
    live, faults = simulated.live(2400)
    plant = LivePlant(plan, live)
    folder = Path(os.environ.get("HEADRACE_PICTURES", tmp_path))
    async with serving(plant, page):
        first_ms = min(event.start_ms for event in faults)
        plant.play((first_ms - plant.now_ms) / 2000)
        while plant.board.alerts.open():
            assert plant.now_ms < first_ms, "an alert was open all the time before the first fault"
            plant.play(60)
        await page.show_as(1280, 500)
        await page.open(f"{plant.url}/")
        await page.wait_for("document.querySelectorAll('#assets a').length === 12")
        calm = await photograph(page, folder / "page-calm.png")

        while not (found := told(plant, faults)):
            assert plant.now_ms < max(event.end_ms for event in faults), "no fault was found"
            plant.play(60)
        plant.play(260)
        await page.show_as(1280, 1180)
        await page.evaluate(f"location.hash = '#/asset/{found}'")
        await page.wait_for("document.querySelectorAll('#signals canvas').length === 8")
        await page.wait_for("document.querySelectorAll('#alerts a').length")
        alarmed = await photograph(page, folder / "page-fault.png")
    assert (calm.size, alarmed.size) == ((1280, 500), (1280, 1180))
    severities = {(0xB0, 0x10, 0x3A), (0xB3, 0x43, 0x0B), (0x85, 0x5A, 0x00)}  # as page.css has them
    assert severities & colours(alarmed)
    assert not severities & colours(calm)


def told(plant: LivePlant, faults: Sequence[Event]) -> str:
    """An asset with a fault and an open alert of a detector that expects something; or nothing."""
    struck = {event.asset for event in faults if event.start_ms < plant.now_ms < event.end_ms - 300_000}
    for alert in plant.board.alerts.open():
        if alert.asset in struck and alert.causes[0].low is not None:
            return alert.asset
    return ""


async def photograph(page: Page, path: Path) -> Image.Image:
    """What is visible; written with a palette, which is a quarter of the bytes."""
    await asyncio.sleep(1.2)  # a second answer has come and every bar has reached its length
    picture = Image.open(io.BytesIO(await page.screenshot())).convert("RGB")
    await asyncio.to_thread(picture.quantize(200, dither=Image.Dither.NONE).save, path, optimize=True)
    return picture


def colours(picture: Image.Image) -> set[Any]:
    return {colour for _, colour in picture.getcolors(maxcolors=1 << 24) or ()}
