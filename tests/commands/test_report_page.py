"""The report page of a suite in a real browser, headless Chromium: what a reader clicks, types, sends on and prints."""

import re
from unittest import mock

import pytest
from browser import in_a_browser, requested, resized, until
from command import here
from frames import WHERE, cells, write_suite

from harness.report.figures.style import STYLE
from harness.storage.store import Store

pytestmark = in_a_browser

METHODS = {
    "base": [79.0, 80.0, 81.0],
    "base_recalibrated": [80.0, 81.0, 82.0],
    "time_mean": [78.0, 79.5, 80.0],
    "swa": [83.0, 84.1, 85.2],
    "ema": [90.0, 91.2, 92.1],
    "lawa": [82.0, 80.0, 83.0],
    "cmd_online": [82.5, 83.1, 84.9],
    "halfway": [70.0, "diverged", "left"],
}
"""of model net_a; one less on net_b"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A suite of two models, with a cell that diverged and one that is not finished, reported by the command."""
    store = Store(tmp_path_factory.mktemp("page") / "results")
    groups = []
    for model, lower in (("net_a", 0.0), ("net_b", 1.0)):
        for method, accuracies in METHODS.items():
            values = [value if isinstance(value, str) else value - lower for value in accuracies]
            groups.append(cells(method, values, model))
    primary = [{"method": method, "control": "base_recalibrated"} for method in ("swa", "ema")]
    write_suite(store, groups, primary=primary)
    with mock.patch.dict(STYLE, {"savefig.dpi": 40}):
        here("report", "suite=quick", results=store.root)
    return store.suite_folder("quick") / "report" / "index.html"


def drawn(driver):
    """Names of the curves that are drawn, once there are some."""
    return set(until(driver, "document.querySelector('#plot')?.data?.filter(t => t.name).map(t => t.name)"))


@pytest.fixture
def browser(chromium, page):
    """The page just opened, 1280 pixels wide; at the end nothing may have gone wrong or left the disk."""
    resized(chromium, 1280)
    chromium.get("about:blank")
    chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get(page.as_uri())
    until(chromium, "document.querySelectorAll('#plot .scatterlayer .trace').length > 0")
    yield chromium
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    schemes = requested(chromium)
    assert schemes
    assert {*schemes} <= {"file", "data", "blob"}


def column(driver, table, name):
    """Texts of a column from the top, of the lines that are shown."""
    script = """
        const table = document.querySelector(arguments[0]);
        const heads = [...[...table.tHead.rows].at(-1).cells];
        const place = heads.findIndex((head) => head.querySelector("button")?.dataset.column === arguments[1]);
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[place].dataset.sort);
    """
    return driver.execute_script(script, table, name)


def numbers(texts):
    return [float(text) for text in texts if text != ""]


def button(driver, table, name):
    return driver.find_element("css selector", f'{table} thead button[data-column="{name}"]')


def choose(driver, select, begins):
    """Type what an option begins with, as a reader would; the driver's click on an option makes fewer events."""
    driver.find_element("css selector", f"select[name={select}]").send_keys(begins)


def test_a_column_sorts_either_way_and_unknown_values_stay_last(browser):
    planned = column(browser, "#main", "test_accuracy")
    sort = button(browser, "#main", "test_accuracy")
    sort.click()
    values = column(browser, "#main", "test_accuracy")
    assert numbers(values) == sorted(numbers(planned), reverse=True)
    sort.click()
    values = column(browser, "#main", "test_accuracy")
    assert numbers(values) == sorted(numbers(planned))
    assert button(browser, "#main", "test_accuracy").find_element("xpath", "..").get_attribute("aria-sort") == (
        "ascending"
    )
    button(browser, "#main", "p_base_recalibrated").click()
    p = column(browser, "#main", "p_base_recalibrated")
    assert "" in p
    assert p == [*p[: p.index("")], *[""] * p.count("")]
    for _ in range(2):
        button(browser, "#main", "p_base_recalibrated").click()
    assert column(browser, "#main", "test_accuracy") == planned


def test_the_best_stands_first(browser):
    methods = column(browser, "#main", "method")
    assert methods[:4] == ["ema", "swa", "cmd_online", "lawa"]
    assert len(methods) == 2 * len(METHODS)


def test_filters_narrow_the_tables_together(browser):
    browser.find_element("css selector", "#filters input[name=q]").send_keys("a_re")
    assert column(browser, "#main", "method") == []
    browser.find_element("css selector", "#filters button[type=reset]").click()
    until(browser, "document.querySelector('#shown').textContent.startsWith('16 of 16')")
    choose(browser, "model", "net_b")
    browser.find_element("css selector", "#filters input[name=q]").send_keys("SWA")
    assert column(browser, "#main", "method") == ["swa"]
    assert column(browser, "#main", "model") == ["net_b"]
    assert column(browser, "#costs", "model") == ["net_b"]
    assert column(browser, "#overall", "method") == ["swa"]
    assert browser.find_element("id", "shown").text == "1 of 16 lines"


def test_curves_are_drawn_from_the_data_and_follow_the_choices(browser):
    assert "EMA" in drawn(browser)
    last = "document.querySelector('#plot').data.find(t => t.name === 'EMA').y.at(-1)"
    # mean of the three seeds' validation accuracies, one above the test accuracies
    assert browser.execute_script(f"return {last}") == pytest.approx((91.0 + 92.2 + 93.1) / 3, abs=0.01)
    choose(browser, "row", "net_b")
    assert until(browser, f"Math.abs({last} - {(90.0 + 91.2 + 92.1) / 3}) < 0.01")
    before = browser.execute_script("return document.querySelector('#plot').data.length")
    browser.find_element("name", "bands").click()
    assert until(browser, "document.querySelector('#plot').data.length < arguments[0]", before)
    choose(browser, "x", "gradient")
    # four epochs of 1,000 images
    assert until(browser, "document.querySelector('#plot').data.find(t => t.name === 'EMA').x.at(-1) === 4000")
    assert browser.execute_script("return document.querySelector('#plot .xtitle').textContent").startswith("gradient")
    assert browser.execute_script("return getComputedStyle(document.querySelector('#plot .lines path')).stroke")


def test_the_curves_have_a_table(browser):
    browser.find_element("css selector", "#curve-table summary").click()
    cells = until(
        browser, "[...document.querySelectorAll('#curve-table tr')].map(r => [...r.cells].map(c => c.textContent))"
    )
    assert cells[0] == ["method", "1", "2", "3", "4"]
    (ema,) = [line for line in cells if line[0] == "ema"]
    assert float(ema[4]) == pytest.approx((91.0 + 92.2 + 93.1) / 3, abs=0.01)


def test_the_address_keeps_the_view(browser):
    choose(browser, "model", "net_b")
    browser.find_element("css selector", "#filters input[name=q]").send_keys("m")
    button(browser, "#main", "test_accuracy").click()
    choose(browser, "metric", "validation loss")
    browser.find_element("css selector", '#legend button[data-legend="ema"]').click()
    shown, curves = column(browser, "#main", "method"), drawn(browser)
    assert shown == ["ema", "cmd_online", "time_mean"]
    assert "EMA" not in curves
    address = browser.current_url
    for visit in (browser.refresh, lambda: (browser.get("about:blank"), browser.get(address))):
        visit()
        assert drawn(browser) == curves
        assert column(browser, "#main", "method") == shown
        assert browser.find_element("name", "metric").get_attribute("value") == "val_loss"
        assert browser.find_element("css selector", "#filters input[name=q]").get_attribute("value") == "m"


def test_the_keyboard_reaches_sorting_and_the_legend(browser):
    from selenium.webdriver import ActionChains, Keys

    def press(key):
        ActionChains(browser).send_keys(key).perform()

    def focused(script):
        return browser.execute_script(f"const e = document.activeElement; return {script}")

    press(Keys.TAB)
    assert focused("e.textContent") == "Skip to the results"
    reached = {}
    for _ in range(200):
        press(Keys.TAB)
        name = focused("e.dataset.legend ?? (e.closest('#main') && e.dataset.column)")
        if name == "test_accuracy" and name not in reached:
            press(Keys.ENTER)
            reached[name] = focused("e.closest('th').getAttribute('aria-sort')")
        if name == "swa":
            press(Keys.SPACE)
            # the legend is made anew, and the focus stays where it was
            reached[name] = focused("e.dataset.legend + e.getAttribute('aria-pressed')")
            break
    assert reached == {"test_accuracy": "descending", "swa": "swafalse"}
    assert "SWA" not in drawn(browser)
    assert focused("getComputedStyle(e).outlineStyle") != "none"


def test_the_title_says_what_is_compared(browser):
    assert browser.find_element("tag name", "h1").text == "net_a, net_b on digits: 8 methods, 3 seeds (partial)"
    assert browser.title.startswith("net_a, net_b on digits: 8 methods, 3 seeds")
    assert "Suite quick, 48 cells: 44 done, 2 diverged, 2 left" in browser.find_element("tag name", "header").text


def test_exploratory_findings_are_a_table_that_sorts_and_filters(browser):
    """Of 5 methods beside base two are primary; cmd_online stands beside the time mean too, halfway has no 3 seeds."""
    assert column(browser, "#explored", "method")[:4].count("cmd_online") == 2
    lines = list(zip(column(browser, "#explored", "method"), column(browser, "#explored", "control"), strict=True))
    assert set(lines) == {
        *((method, "base_recalibrated") for method in ("time_mean", "lawa", "cmd_online")),
        ("cmd_online", "time_mean"),
    }
    assert len(lines) == 8
    button(browser, "#explored", "difference").click()
    differences = numbers(column(browser, "#explored", "difference"))
    assert differences == sorted(differences, reverse=True)
    assert set(column(browser, "#explored", "verdict")) <= {"ahead", "close", "open", "behind"}
    heads = [head.text for head in browser.find_elements("css selector", "#explored thead th")]
    assert heads[3:6] == ["difference (points)", "95 % interval (points)", "verdict"]
    browser.find_element("css selector", "#filters input[name=q]").send_keys("lawa")
    assert column(browser, "#explored", "method") == ["lawa", "lawa"]
    summary = browser.find_element("id", "summary").text
    assert "In 8 exploratory comparisons, whose intervals are not adjusted" in summary
    assert "Exploratory," not in summary


@pytest.mark.parametrize("width", [1280, 390])
def test_a_line_shows_its_method_its_cells_and_its_test_accuracy_without_scrolling(browser, width):
    resized(browser, width)
    script = """
        const row = document.querySelector("#main tbody tr");
        return [row.querySelector("code"), ...row.querySelectorAll("a"), row.cells[arguments[0]]].map((e) => {
            const box = e.getBoundingClientRect();
            return [e.textContent.trim(), box.left, box.right, box.width];
        });
    """
    where = browser.execute_script("return document.querySelectorAll('#main thead tr:last-child .where').length")
    parts = browser.execute_script(script, 1 + where)
    assert [text for text, *_ in parts] == ["ema", "0", "1", "2", "91.10 ± 1.05"]
    assert all(width_of > 0 and left >= 0 and right <= width for _, left, right, width_of in parts)
    # and the cells stay in sight when the numbers are scrolled
    browser.execute_script("document.querySelector('#main').parentElement.scrollLeft = 400")
    assert all(0 <= left < right <= width for _, left, right, _ in browser.execute_script(script, 1 + where)[:4])


@pytest.mark.parametrize("width", [1000, 700])
def test_links_to_cells_stay_in_their_column(browser, width):
    """Also where the table is wider than the window, and so as narrow as it can be."""
    resized(browser, width)
    script = """
        return [...document.querySelectorAll("tbody th a")].map(link =>
            link.closest("th").getBoundingClientRect().right - link.getBoundingClientRect().right);
    """
    assert min(browser.execute_script(script)) >= 0


def test_numbers_have_their_units(browser):
    def heads(table):
        return [head.text for head in browser.find_elements("css selector", f"{table} thead tr:last-child th.number")]

    assert heads("#main")[:3] == ["test %", "val %", "Δ (points)"]
    assert "wins (seeds)" in heads("#main")
    cost = heads("#costs")
    assert {"train s", "peak MB", "gradients (images)", "moving (share)", "area (%)", "reached (seeds)"} <= set(cost)
    plain = ("epochs", "in the prefix", "subspace epochs", "epochs to target")
    assert [text for text in cost if not re.search(r"\(.+\)$| s$|^s |MB|%", text) and text not in plain] == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser, width, tmp_path):
    resized(browser, width)
    until(
        browser,
        "['#plot .main-svg', '#plot'].map(name => document.querySelector(name).clientWidth)"
        ".reduce((svg, box) => Math.abs(svg - box) < 2)",
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    image = tmp_path / "page.png"
    assert browser.save_screenshot(str(image))
    assert image.stat().st_size > 10_000
    # beside each other on a desk, below each other on a phone
    tops = browser.execute_script(
        "return [...document.querySelectorAll('#run dl > *')].slice(0, 2).map(e => e.offsetTop)"
    )
    assert (tops[0] == tops[1]) == (width == 1280)


def test_what_failed_is_said_with_its_line_of_code_and_its_log(page):
    """On the page's first lines, in the table of failures, and on the cell's own page."""
    (own,) = [path for path in (page.parent / "cells").glob("*.html") if WHERE in path.read_text()][:1]
    log = f"cells/{own.stem}/log.txt"
    assert log in own.read_text()
    text = page.read_text()
    assert text.count(WHERE) == 4  # of both models
    assert text.count(log) == 2


def test_what_is_not_finished_and_what_diverged_is_said(browser):
    banner = browser.find_element("css selector", ".banner").text
    assert "Partial results" in banner
    assert "2 of 48 cells" in banner
    failures = browser.find_element("id", "failures").text
    assert "halfway" in failures
    assert "NaN loss" in failures
    (line,) = [
        text
        for text in browser.find_element("css selector", ".warnings").text.splitlines()
        if "net_a" in text and "missing" in text
    ]
    assert line == "missing: net_a digits sgd: seeds 2 of halfway"


def test_a_cell_has_a_page_with_its_history(browser, page):
    link = browser.find_element("css selector", '#main a[aria-label="ema on net_a, digits, sgd, seed 1, done"]')
    browser.execute_script("arguments[0].click()", link)
    assert until(browser, "document.querySelector('h1').textContent === 'EMA on net_a, digits, sgd, seed 1'")
    first = browser.find_element("css selector", "main dl").text.split("\n")
    assert first[:4] == ["test accuracy", "91.20 %", "validation accuracy", "92.20 %"]
    configuration = browser.find_element("css selector", "main section dl").text
    assert "recalibrated" in configuration
    assert "4 epochs" in configuration
    cost = browser.find_elements("css selector", "main section dl")[1].text
    assert "2.0 s" in cost
    assert "4,000 images" in cost
    heads = [head.text for head in browser.find_elements("css selector", "table thead th")]
    assert heads[0] == "epoch"
    assert {"validation accuracy (%)", "training (s)", "gradients (images)"} <= set(heads)
    rows = browser.execute_script("return [...document.querySelectorAll('table tbody tr')].length")
    assert rows == 4
    assert "91.2" in browser.find_element("tag name", "main").text
    browser.find_element("link text", "Suite quick").click()
    until(browser, "document.querySelectorAll('#plot .scatterlayer .trace').length > 0")


def test_figures_and_links_lead_to_files(page):
    """Every relative address of the page is a file of its folder, so the folder can be sent on alone."""
    for html in (page, *sorted(page.parent.glob("cells/*.html"))[:2]):
        addresses = re.findall(r'(?:src|href)="([^"#:]+)"', html.read_text())
        assert addresses
        assert [address for address in addresses if not (html.parent / address).resolve().is_file()] == []
        assert all(page.parent in (html.parent / address).resolve().parents for address in addresses)


def test_on_paper_stands_what_is_read_and_not_what_is_clicked(browser):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    visible = "return [...document.querySelectorAll(arguments[0])].filter(e => e.offsetParent !== null).length"
    counts = {name: browser.execute_script(visible, name) for name in ("nav", "form", ".headline", "#main tbody tr")}
    assert counts == {"nav": 0, "form": 0, ".headline": 1, "#main tbody tr": 16}
    pressed = "return [...document.querySelectorAll('#legend button')].filter(e => e.offsetParent !== null)"
    assert {b.get_attribute("aria-pressed") for b in browser.execute_script(pressed)} == {"true"}
    assert browser.execute_script(
        "return getComputedStyle(document.querySelector('#main').parentElement).overflowX"
    ) == ("visible")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
