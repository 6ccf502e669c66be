"""The built documentation: complete, and in a real browser at two widths, opened from the disk."""

import html.parser
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from browser import in_a_browser, requested, resized, until
from pages import DOCS, ROOT

from harness.packages import CONF
from harness.verbs.words import SUMMARIES


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: a page that is missing, or a link that leads nowhere, fails here."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    build = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert build.returncode == 0, build.stdout + build.stderr
    return folder


class Page(html.parser.HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.inside = [], [], set(), []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag != "a":
            self.loaded += [given[name] for name in ("src", "href", "srcset") if given.get(name)]


@pytest.fixture(scope="module")
def parsed(site):
    return {path: Page(path) for path in site.rglob("*.html")}


def test_no_link_is_dead(parsed):
    """Of all pages, to pages, files and places in pages; other hosts are only linked to."""
    dead = []
    for path, page in parsed.items():
        for link in [*page.links, *page.loaded]:
            if urlsplit(link).scheme or link.startswith("//") or path.name == "404.html":
                continue
            place, fragment = urldefrag(link)
            target = path if place in ("", ".") else Path(os.path.normpath(path.parent / unquote(place)))
            if target.is_dir():
                target = target / "index.html"
            if not target.is_file() or (fragment and target in parsed and unquote(fragment) not in parsed[target].ids):
                dead.append((path.name, link))
    assert not [one for one in dead if not one[1].startswith("#__")]


def test_nothing_is_loaded_from_elsewhere(parsed, site):
    for page in parsed.values():
        assert not [link for link in page.loaded if urlsplit(link).netloc]
    for sheet in site.rglob("*.css"):
        assert "url(http" not in sheet.read_text()
        assert "@import" not in sheet.read_text()


def test_everything_that_can_be_chosen_stands_in_it(site):
    """Every method, key, verb and public class, those of later too."""
    methods = {path.stem for path in (CONF / "method").glob("*.yaml")}
    assert {path.stem for path in (site / "methods").glob("*.html")} == {*methods, "index"}
    listed = (site / "methods" / "index.html").read_text()
    assert all(f">{method}<" in listed for method in methods)
    commands = Page(site / "reference" / "commands.html").ids
    assert set(SUMMARIES) <= commands
    configuration = (site / "reference" / "configuration.html").read_text()
    for group in ("model", "dataset", "optimizer", "suite", "engine"):
        assert all(f">{path.stem}<" in configuration for path in (CONF / group).glob("*.yaml"))
    api = "".join(path.read_text() for path in (site / "api").glob("*.html"))
    for name in ("harness.results.frame.load_frame", "harness.method.Observer", "baselines.cmd.online.OnlineCMD",
                 "baselines.swa.SWA", "baselines.bfgs.BFGS", "baselines.dmd.decomposition.DMD"):  # fmt: skip
        assert f'id="{name}"' in api


def test_formulas_are_mathml(site):
    page = (site / "methods" / "cmd_posthoc.html").read_text()
    assert "<math" in page
    assert "arithmatex" not in page
    assert "\\hat" not in page


def test_pages_say_no_address_of_their_own(site):
    """The project has none yet."""
    assert "edit_uri" not in (site / "index.html").read_text()
    assert not [path for path in DOCS.rglob("*.md") if "github.com" in path.read_text()]


@pytest.fixture(params=[1280, 390])
def browser(request, chromium):
    """A browser at a width; at the end nothing may have gone wrong or been asked of another host."""
    resized(chromium, request.param)
    chromium.get("about:blank")
    chromium.get_log("browser"), chromium.get_log("performance")
    yield chromium
    assert [entry for entry in chromium.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    schemes = requested(chromium)
    assert schemes
    assert {*schemes} <= {"file", "data", "blob", "about"}


def overflow(driver):
    return driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")


@in_a_browser
def test_search_finds_a_page(browser, site):
    """What a shadow run is, from the start page, as a reader types it."""
    browser.get((site / "index.html").as_uri())
    until(browser, "document.readyState === 'complete'")
    if browser.execute_script("return innerWidth") < 960:
        browser.find_element("css selector", "label.md-header__button[for=__search]").click()
    field = browser.find_element("css selector", "input.md-search__input")
    until(browser, "document.querySelector('input.md-search__input').offsetParent !== null")
    field.click()
    field.send_keys("shadow run")
    links = "[...document.querySelectorAll('.md-search-result__link')].map(one => one.href)"
    link = until(browser, f"{links}.find(link => link.includes('?h=shadow+run'))")
    assert "concepts.html" in link
    browser.get(link)
    assert "shadow run" in browser.execute_script("return document.body.innerText").lower()


@in_a_browser
@pytest.mark.parametrize("page", ["index.html", "methods/cmd_posthoc.html", "results.html"])
def test_pages_are_drawn(browser, site, page):
    """Pictures are there, formulas have a size, and nothing is wider than the window."""
    browser.get((site / page).as_uri())
    until(browser, "document.readyState === 'complete'")
    broken = "return [...document.images].filter(one => one.offsetParent && one.naturalWidth === 0).map(one => one.src)"
    assert browser.execute_script(broken) == []
    sizes = browser.execute_script(
        "return [...document.querySelectorAll('math')].map(one => one.getBoundingClientRect().width)"
    )
    assert all(size > 0 for size in sizes)
    assert sizes or page == "results.html"
    assert overflow(browser) <= 0


@in_a_browser
@pytest.mark.long
def test_every_page_is_drawn(browser, site):
    for path in sorted({*site.rglob("*.html")} - {site / "404.html"}):  # which is a server's, by paths from its root
        browser.get(path.as_uri())
        until(browser, "document.readyState === 'complete'")
        assert browser.execute_script("return document.title")
        assert overflow(browser) <= 0, path
