"""The live page in a real browser, served by the real console, with real analytics behind it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus import Bus, BusSettings
from shared.clock import now
from tests.fixtures import page_company
from tests.fixtures.page import Page, browser
from tests.fixtures.page_scene import TOKEN, Scene, Told, scene
from tests.fixtures.waiting import until

SECOND = 1_000_000
DOCUMENT = """
providers:
  - {name: anthropic, kind: anthropic, base_url: "http://127.0.0.1:9", credential: "env:ANTHROPIC_API_KEY"}
customers:
  - id: acme
    budgets: [{limit_usd: 100, period: month}]
    teams:
      - id: platform
        keys:
          - {id: dev-asha, owner: asha@acme.example, budgets: [{limit_usd: 5, period: day}]}
          - {id: dev-omar, owner: "<img src=x onerror=window.pwned=1>", budgets: [{limit_usd: 0.1, period: day}]}
"""
ROWS = "#rows .row"
BROKEN = "document.body.innerText.match(/NaN|undefined|\\bnull\\b|\\[object|Invalid Date/)?.[0]"
CONTRAST = """(() => {
  const channels = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const over = (front, back) => {
    const [r, g, b, a = 1] = front;
    return [r, g, b].map((value, at) => value * a + back[at] * (1 - a));
  };
  const luminance = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const backdrop = (element) => {
    if (!element) return [255, 255, 255];
    const own = channels(getComputedStyle(element).backgroundColor);
    return own[3] === 0 ? backdrop(element.parentElement) : over(own, own[3] === undefined ? own : backdrop(element.parentElement));
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".unseen, .skip, noscript, svg")) continue;
    const back = backdrop(element);
    const [light, dark] = [luminance(over(channels(getComputedStyle(element).color), back)), luminance(back)].sort((a, b) => b - a);
    const ratio = (light + 0.05) / (dark + 0.05);
    if (ratio < 4.5) faint.push(`${element.className || element.tagName}: ${ratio.toFixed(2)} ${element.textContent.slice(0, 30)}`);
  }
  return [...new Set(faint)];
})()"""


@pytest.fixture
async def acme(bus: Bus, bus_settings: BusSettings, tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(bus, bus_settings, tmp_path, DOCUMENT) as made:
        yield made


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with browser(tmp_path) as opened:
        yield opened


async def sign_in(page: Page, at: Scene) -> None:
    await page.open(at.console.url)
    await page.sees("document.activeElement?.id === 'token'")
    await page.type(TOKEN)
    await page.press("Enter")
    await page.sees("document.body.dataset.state === 'signed-in'")
    await page.sees("document.querySelector('#connection-word').textContent === 'live'")
    await page.sees("!document.querySelector('#welcome').hidden || document.querySelector('#rows .row')")


def request(**changes: object) -> Told:
    return Told(**({"at": now() - 6 * SECOND} | changes))  # type: ignore[arg-type]  # fields as a test names them


def own_complaints(page: Page) -> list[str]:
    """The browser notes each refused sign-in; that is no fault of the page."""
    return [text for text in page.complaints if "401" not in text]


async def test_only_the_admin_token_opens_the_page_and_signing_out_closes_it(page: Page, acme: Scene) -> None:
    await page.open(acme.console.url)
    await page.sees("document.activeElement?.id === 'token'")
    await page.press("Enter")
    assert await page.text("#token-error") == "Type the admin token first."
    await page.type("not-the-token")
    await page.press("Enter")
    await page.sees("document.querySelector('#token-error').textContent === 'This is not the admin token.'")
    assert await page.js("document.querySelector('#board').hidden")
    await page.type(TOKEN)  # the wrong one is selected
    await page.press("Enter")
    await page.sees("document.body.dataset.state === 'signed-in'")
    assert TOKEN not in await page.js("document.documentElement.outerHTML + JSON.stringify({...localStorage})")
    assert await page.js("document.cookie") == "", "scripts must not see the session"
    await page.open(acme.console.url)
    await page.sees("document.body.dataset.state === 'signed-in'")
    await page.click("#sign-out")
    await page.sees("document.body.dataset.state === 'signed-out'")
    await page.open(acme.console.url)
    await page.sees("document.body.dataset.state === 'signed-out'")


async def test_before_the_first_request_the_page_tells_how_to_send_one(page: Page, acme: Scene) -> None:
    await sign_in(page, acme)
    told = await page.text("#welcome")
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:8080" in told
    assert "export ANTHROPIC_AUTH_TOKEN=" in told
    assert await page.text("#traffic") == "anthropic → goes to 127.0.0.1:9 this machine"
    await acme.serve(request())
    await page.sees("document.querySelectorAll('#rows .row').length === 1 && document.querySelector('#welcome').hidden")


async def test_a_request_is_seen_as_it_ends_and_its_price_comes_into_the_same_row(page: Page, acme: Scene) -> None:
    await sign_in(page, acme)
    told = request(
        tokens={"input": 1_200, "cache_write_5m": 3_100, "cache_read": 48_000, "output": 700, "thinking": 140}
    )
    request_id = await acme.tell(told)
    await page.sees(f"document.querySelectorAll('{ROWS}').length === 1")
    row = await page.text(ROWS)
    for word in (
        "dev-asha",
        "asha@acme.example",
        "platform",
        "acme",
        "claude-sonnet-5",
        "pricing…",
        "640 ms",
        "5.30 s",
    ):
        assert word in row
    cost = await acme.book(told, request_id)
    await page.sees("!document.querySelector('#rows .pending')")
    assert await page.js(f"document.querySelectorAll('{ROWS}').length") == 1
    exact = f"${cost // 10**9}.{cost % 10**9:09d}"
    assert await page.js("document.querySelector('#rows .cost [title]').title") == exact
    assert await page.text("#rows .numbers") == "1.2k 3.1k · 48k 840"
    for name in ("today", "hour", "minute"):
        await page.sees(f"document.querySelector('.figure.{name} .value').title === '{exact}'")


async def test_a_refusal_names_its_budget_in_words(page: Page, acme: Scene) -> None:
    await sign_in(page, acme)
    await page.sees("document.querySelector('.budget')")
    budget = acme.budget("key", "dev-omar")
    acme.blocked.add(budget)
    await acme.serve(
        request(
            key="dev-omar", verdict="refused", reason="spent", budget=budget, status=400, message="Budget exceeded."
        )
    )
    await page.sees("document.querySelector('#rows .is-stop')")
    row = await page.text(ROWS)
    assert "refused budget spent · key dev-omar, daily" in row
    await page.sees("document.querySelector('.figure.refused .value').textContent === '1'")
    await page.sees("document.querySelector('.budget').innerText.includes('blocked')")
    assert "dev-omar" in await page.text(".budget"), "what is blocked stands first"


async def test_budgets_show_spent_and_held_of_their_limit(page: Page, acme: Scene) -> None:
    acme.held[acme.budget("key", "dev-asha")] = 1_250_000_000
    await acme.serve(request(tokens={"output": 200_000}))
    await sign_in(page, acme)
    await page.sees("document.querySelectorAll('.budget').length === 3")
    spent = acme.cost["dev-asha"]
    assert spent < 5_000_000_000 - 1_250_000_000
    first = await page.text(".budget")
    assert "dev-asha" in first
    assert f"${spent / 1e9:.2f} + $1.25 held of $5.00" in first
    assert f"${(5_000_000_000 - 1_250_000_000 - spent) / 1e9:.2f} left" in first
    assert "daily · hard" in first
    assert "resets in " in first
    shares = await page.js("[...document.querySelectorAll('.budget:first-child .bar i')].map((bar) => bar.style.width)")
    assert shares == [f"{spent / 5e7:.2f}%".replace(".00%", "%"), "25%"]


async def test_the_drawer_tells_the_whole_story_and_gives_the_focus_back(page: Page, acme: Scene) -> None:
    told = request(
        model="claude-opus-5-5", tokens={"input": 72, "cache_read": 64_272, "cache_write_1h": 28_959, "output": 1_218}
    )
    request_id = await acme.serve(told)
    await sign_in(page, acme)
    await page.sees(f"document.querySelector('{ROWS}') && !document.querySelector('#rows .pending')")
    await page.js(f"document.querySelector('{ROWS}').focus()")
    await page.press("Enter")
    await page.sees("document.querySelector('#story .lines')")
    story = await page.text("#story")
    for part in (
        request_id,
        "acme",
        "edge-7f3a",
        "2026-11-21",
        "end turn",
        "req_011CTx9Yb3",
        "key acme/platform/dev-asha, daily",
    ):
        assert part in story
    lines = await page.texts("#story .lines tbody tr")
    assert lines == [
        "input anthropic/claude-opus-5-5 72 $4 $0.000288",
        "cache write 1h anthropic/claude-opus-5-5 28,959 $8 $0.231672",
        "cache read anthropic/claude-opus-5-5 64,272 $0.20 $0.012854",
        "output anthropic/claude-opus-5-5 1,218 $20 $0.024360",
    ]
    assert not await page.js(BROKEN)
    await page.press("Escape")
    await page.sees("!document.querySelector('#story').open && location.hash === ''")
    assert await page.js("document.activeElement.dataset.id") == request_id
    await page.open(f"{acme.console.url}/#request={request_id}")
    await page.js("location.reload()")
    await page.sees("document.querySelector('#story .lines')")


async def test_names_that_look_like_markup_stay_text(page: Page, acme: Scene) -> None:
    await sign_in(page, acme)
    markup = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
    request_id = await acme.serve(
        request(key="dev-omar", model=markup, session=markup, outcome=markup, error_type=markup)
    )
    await page.sees("document.querySelector('#rows .row') && !document.querySelector('#rows .pending')")
    assert markup in await page.js("document.querySelector('#rows').innerText")
    await page.click(f"{ROWS} .time")
    await page.sees("document.querySelector('#story .facts')")
    assert markup in await page.js("document.querySelector('#story').innerText")
    assert request_id in await page.text("#story")
    assert await page.js(
        "[window.pwned ?? 0, document.images.length, document.querySelectorAll('main script').length]"
    ) == [0, 0, 0]


async def test_a_burst_stays_exact_and_bounded_and_can_be_paused_and_searched(page: Page, acme: Scene) -> None:
    await sign_in(page, acme)
    told = [request(at=now() - 30 * SECOND + n, key=("dev-asha", "dev-omar")[n % 2]) for n in range(260)]
    await asyncio.gather(*(acme.serve(item) for item in told))
    await page.sees("document.querySelector('.figure.hour .note').textContent === '260 requests'", 20)
    cost = sum(acme.cost.values())
    await page.sees(
        f"document.querySelector('.figure.hour .value').title === '${cost // 10**9}.{cost % 10**9:09d}'", 20
    )
    await page.sees(f"document.querySelectorAll('{ROWS}').length === 200")
    times = await page.js(f"[...document.querySelectorAll('{ROWS}')].map((row) => row.querySelector('time').dateTime)")
    assert times == sorted(times, reverse=True)

    await page.click("#pause")
    await acme.serve(request(at=now(), model="claude-haiku-5-5"))
    await page.sees("document.querySelector('#fresh').textContent === '1 new'")
    assert "claude-haiku" not in await page.text("#rows")
    await page.click("#fresh")
    await page.sees(f"document.querySelector('{ROWS}').innerText.includes('claude-haiku-5-5')")
    assert await page.text("#pause") == "Pause"

    await page.press("/")
    await page.type("haiku asha")
    await page.sees(f"[...document.querySelectorAll('{ROWS}')].filter((row) => !row.hidden).length === 1")
    await page.type(" nobody")
    assert await page.text("#none") == "None of the last 200 requests matches."


async def test_a_row_under_the_pointer_stays_where_it_is(page: Page, acme: Scene) -> None:
    first = await acme.serve(request())
    await sign_in(page, acme)
    await page.sees(f"document.querySelectorAll('{ROWS}').length === 1")
    await page.hover(ROWS)
    second = await acme.serve(request(at=now()))
    await page.sees("document.querySelector('#fresh').textContent === '1 new'")
    assert await page.js(f"document.querySelector('{ROWS}').dataset.id") == first
    await page.move(5, 5)
    await page.sees(f"document.querySelector('{ROWS}').dataset.id === '{second}'")


async def test_the_page_comes_back_with_the_console_and_shows_what_it_missed(page: Page, acme: Scene) -> None:
    await sign_in(page, acme)
    await acme.console.stop()
    await page.sees("document.querySelector('#connection-word').textContent === 'reconnecting'")
    missed = await acme.serve(request())
    await acme.console.start()
    await page.sees("document.querySelector('#connection-word').textContent === 'live'", 20)
    await page.sees(f"document.querySelector('{ROWS}')?.dataset.id === '{missed}'", 20)

    await page.send("Network.clearBrowserCookies")
    await acme.console.stop()
    await acme.console.start()
    await page.sees("document.querySelector('#token-error').textContent.startsWith('Your session has ended')", 20)
    assert await page.js(f"document.querySelectorAll('{ROWS}').length") == 0, "nothing is left for the next person"


async def test_a_busy_page_fits_every_window_in_both_schemes(
    page: Page, bus: Bus, bus_settings: BusSettings, tmp_path: Path
) -> None:
    async with scene(bus, bus_settings, tmp_path, page_company.DOCUMENT) as company:
        requests = list(page_company.hour(company, now() - 3 * SECOND, 240))
        await asyncio.gather(*(company.serve(told) for told in requests))
        company.blocked.add(company.budget("key", "ci-payments"))
        await sign_in(page, company)
        await page.sees("document.querySelector('.budget') && document.querySelectorAll('#rows .row').length > 100", 20)
        for width, height in ((360, 800), (900, 1100), (1366, 768), (1920, 1080), (3840, 2160)):
            for scheme in ("dark", "light"):
                await page.look(width, height, scheme=scheme)
                await until(
                    lambda: page.js("document.documentElement.scrollWidth <= innerWidth"), what=f"{width} px fit"
                )
                assert await page.js(CONTRAST) == [], (width, scheme)
        assert not await page.js(BROKEN)
        assert own_complaints(page) == []
        assert {url for url in page.requested if not url.startswith(company.console.url)} == set()


async def test_money_and_counts_are_told_exactly_however_large_or_small(page: Page, acme: Scene) -> None:
    await page.open(acme.console.url)

    async def told(call: str) -> object:
        return await page.js(f"import('/static/format.js').then((f) => f.{call})")

    assert await told("usd(123456789012345678901n)") == "$123,456,789,012.35"
    assert (
        await told("usd(f.parse('{\"cost_nano_usd\": 90071992547409931}').cost_nano_usd, 9)") == "$90,071,992.547409931"
    )
    assert await told('parse(\'{"message": "say \\\\"cost_nano_usd\\\\": 5"}\').message') == 'say "cost_nano_usd": 5'
    assert [await told(f"usd({n}n)") for n in (0, 5, 213_000, 42_300_000, 999_999_999, 1_004_999_999, -5_000_000_000)] == [
        "$0.00", "$0.000000005", "$0.000213", "$0.0423", "$1.0000", "$1.00", "−$5.00",
    ]  # fmt: skip
    assert [await told(f"usd({n})") for n in ("null", "undefined")] == ["–", "–"]
    assert [await told(f"compact({n})") for n in (0, 999, 1_000, 1_249, 48_000, 999_600, 1_300_000)] == [
        "0", "999", "1k", "1.2k", "48k", "1M", "1.3M",
    ]  # fmt: skip
    assert [await told(f"duration({n})") for n in (-1, "null", 0, 640, 5_300, 61_000)] == [
        "–", "–", "0 ms", "640 ms", "5.30 s", "1 min 1 s",
    ]  # fmt: skip
    assert await told("perMillion(3000000n * 7n, 7)") == "$3"
