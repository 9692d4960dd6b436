"""The audit's page in a real browser: nothing leaves, nothing of the data runs, all parts work.

It needs `pip install playwright` and a Chromium of the system; with `axe-playwright-python` too,
the page's accessibility is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.audit.browser import (
    NEEDS_BROWSER,
    SIZES,
    browser,
    fits,
    opened_page,
    serious_faults,
)
from tests.audit.page_data import data_of, unpacked

from stepcredit.audit import page_rows
from stepcredit.audit.attack.attack_check import (
    ATTACK_CHECK,
    EditRow,
    SavedAttack,
    attack_result,
)
from stepcredit.audit.attack.earnings import EarnedChange
from stepcredit.audit.audit_report import audit
from stepcredit.audit.finding import (
    AuditFigure,
    CheckResult,
    EvidencePlace,
    Finding,
    Unchecked,
)
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.packed_columns import ColumnPacker
from stepcredit.credit.method_registry import METHODS

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytestmark = NEEDS_BROWSER

__all__ = ["browser"]  # a fixture
EVIL = (
    "</script><script>window.hit=1</script><img src=x onerror='window.hit=2'>"
    "<a href='javascript:window.hit=3'>x</a>\u202e\x1b[31m"
)
TEMPLATES = Path(page_rows.__file__).with_name("templates")


def evil_attack() -> SavedAttack:
    """What an attack earned, with names that try to run."""
    paid = EarnedChange(0.5, 0.4, 0.6, 24, 8)
    row = EditRow(EVIL, EVIL, True, 24, {EVIL: 1}, {"mean": paid}, {EVIL: {"at the edit": paid}})
    return SavedAttack("attack.json", EVIL, (EVIL,), ("key",), (row,))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 24 responses, whose texts try to run."""
    from stepcredit.audit.audit_page import audit_page

    rows: list[dict[str, Any]] = []
    for i in range(24):
        tokens = ["so ", "1 ", "\n", "then ", "2 ", EVIL if i == 5 else "\n", "end"]
        scores = [0.1 * (i % 7), 0.2 * (i % 3), 0.5]
        row = {"group": f"{EVIL if i // 4 == 1 else 'g'}{i // 4}", "outcome": float(i % 2)}
        rows.append({**row, "tokens": tokens, "step_ends": [2, 5, 6], "step_scores": scores})
        rows[-1]["prompt"] = EVIL
    figure = AuditFigure(EVIL, 0.5, 24, "responses", 0.2, 0.8, "pass")
    places = (EvidencePlace(5, 1), EvidencePlace(9))
    found = [
        Finding("planted", s, f"{s} {EVIL}", (figure,), EVIL, places) for s in ("fault", "note")
    ]
    result = CheckResult((figure,), tuple(found), (Unchecked("planted", EVIL, EVIL),))
    paid = {"method": EVIL, "kind": EVIL, "value": 1.0, "low": 0.5, "high": 2.0, "count": 7}
    payment = CheckResult((figure,), series={"payment": [paid, {**paid, "method": "pure"}]})
    checks = {"planted": result, "payment": payment, ATTACK_CHECK: attack_result(evil_attack())}
    methods = {name: METHODS.build(name) for name in ("pass", "pure", "pass-min", "grpo")}
    given = {name: lambda _, r=result: r for name, result in checks.items()}
    report = audit(LoggedBatch.of(rows), methods, checks=given)
    path = tmp_path_factory.mktemp("page") / "audit.html"
    path.write_text(audit_page(report))
    return path


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Any]:
    with opened_page(browser, page_file) as page:
        yield page


def listed(page: Any) -> list[int]:
    return [int(x.get_attribute("data-row")) for x in page.query_selector_all("#list button")]


def test_texts_are_shown_as_text(opened: Any) -> None:
    opened.evaluate("location.hash = '#r=5'")
    opened.wait_for_selector("#detail h3:has-text('Line 6')")
    shown = opened.text_content("#detail .tokens")
    assert "<img src=x onerror='window.hit=2'>" in shown
    assert "⟨U+202E⟩⟨U+001B⟩[31m" in shown
    assert opened.query_selector_all("img, main script, [onerror]") == []
    assert opened.query_selector_all("a[href^=javascript]") == []


def test_a_link_of_a_finding_opens_the_response_at_its_step(opened: Any) -> None:
    opened.click(".finding a[href='#r=5&s=1']")
    opened.wait_for_selector("#detail h3:has-text('Line 6')")
    assert "token 6 of 7, step 2 of 3" in opened.text_content("#inspector")
    chosen = opened.query_selector_all("#detail .panel:first-child .chunk")
    assert [x.get_attribute("data-token") for x in chosen] == ["3", "4", "5"]
    assert opened.is_visible("#inspector")


def test_a_link_to_a_chunk_marks_it_under_its_method(opened: Any) -> None:
    opened.hover("#detail [data-token='4']")
    link = opened.get_attribute("#inspector a >> nth=0", "href")
    row = listed(opened)[0]
    assert link == f"#r={row}&m=pass&c=1"
    opened.evaluate("location.hash = '#r=9&m=grpo&c=0'")
    opened.wait_for_selector("#detail h4:has-text('grpo')")
    chosen = [x.input_value() for x in opened.query_selector_all("#methods input:checked")]
    assert chosen == ["pass", "pure", "grpo"]
    tokens = opened.query_selector_all("#detail .tokens[data-method=grpo] .chunk")
    assert [x.get_attribute("data-token") for x in tokens] == [str(i) for i in range(7)]
    opened.evaluate("location.hash = '#r=9&m=pass&c=2'")
    opened.wait_for_selector("#inspector:has-text('token 7 of 7')")


def test_columns_are_unpacked_as_they_were_packed(opened: Any) -> None:
    source, packer = np.random.default_rng(0), ColumnPacker()
    given = [
        source.normal(size=300),
        source.normal(size=300).cumsum(),
        np.arange(40) * 1e-7,
        np.where(np.arange(400) % 20 == 0, 9999.0, np.arange(400) / 10),
        np.array([123456.0, -7.0]),
    ]
    streams = {str(i): {"ends": None, "values": packer.add(x)} for i, x in enumerate(given)}
    places = packer.add_places([0, 5, 32_767])
    packed = packer.packed({"steps": places, "streams": streams, "methods": {}, "text": EVIL})
    script = (TEMPLATES / "page_unpacking.js").read_text()
    found = opened.evaluate(f"async (packed) => {{ {script}; return unpacked(packed); }}", packed)
    expected = unpacked({"packed": packed})
    assert found["text"] == EVIL
    assert found["steps"] == expected["steps"] == [0, 5, 32_767]
    assert found["streams"] == expected["streams"]


def test_the_numbers_of_a_token_are_those_of_explain(opened: Any, page_file: Path) -> None:
    row = next(x for x in data_of(page_file.read_text())["rows"] if x["row"] == 6)
    stages = unpacked(row)["methods"]["pass"]["stages"]
    opened.evaluate("location.hash = '#r=6&t=3'")
    opened.wait_for_selector("#inspector:has-text('token 4 of 7')")
    table = {
        line.query_selector("th").text_content(): line.query_selector("td").text_content()
        for line in opened.query_selector_all("#inspector tr")[1:]
    }
    for name in ("N(process)", "fused", "return_to_go", "advantage"):
        assert float(table[name]) == float(f"{stages[name][1]:.3g}")


def test_a_note_on_a_mark_and_tables_in_print(opened: Any) -> None:
    opened.hover(".picture .mark >> nth=1")  # its dot: a line has no area
    assert opened.is_visible("#tip")
    assert "<script>window.hit=1</script>" in opened.text_content("#tip")
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    tables = opened.query_selector_all(".picture table")
    assert tables
    assert all(table.is_visible() for table in tables)
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not tables[-1].is_visible()


def test_the_attack_is_a_table_of_text(opened: Any) -> None:
    table = opened.text_content("table.attack")
    assert EVIL.replace("\u202e", "⟨U+202E⟩").replace("\x1b", "⟨U+001B⟩") in table
    assert "exploitable0.5 (0.4 to 0.6)" in table


def test_a_browser_without_unpacking_says_what_it_needs(browser: Any, page_file: Path) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(page_file.as_uri() + "#r=5")
    page.wait_for_selector("#detail p:has-text('This browser cannot unpack the responses')")
    assert len(listed(page)) == 24
    page.fill("#search", "line 24")
    page.wait_for_function("document.querySelectorAll('#list button').length === 1")
    context.close()


def test_names_that_objects_have_are_names_like_others(browser: Any, tmp_path: Path) -> None:
    from stepcredit.audit.audit_page import audit_page

    rows = [
        {"group": name, "outcome": float(i), "tokens": ["a ", "b"], "step_ends": [0, 1]}
        for name in ("__proto__", "constructor")
        for i in (0, 1)
    ]
    for i, row in enumerate(rows):
        row["signals"] = {
            name: {"scores": [0.5, 0.25 * i], "ends": [0, 1]}
            for name in ("__proto__", "toString", "constructor")
        }
    weights = {"__proto__": 1.0, "toString": 1.0, "constructor": 1.0, "outcome": 1.0}
    methods = {"__proto__": METHODS.build("pass", {"weights": weights})}
    path = tmp_path / "names.html"
    path.write_text(audit_page(audit(LoggedBatch.of(rows), methods, checks={})))
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri() + "#r=3&t=1")
    page.wait_for_selector("#inspector:has-text('token 2 of 2')")
    box = page.text_content("#inspector")
    assert all(f"stream {name}: 0.75" in box for name in ("__proto__", "toString", "constructor"))
    assert "N(constructor)" in box
    assert page.text_content("#detail h4").startswith("__proto__: mean advantage")
    assert wrong == []
    page.close()


def test_a_damaged_file_says_so(browser: Any, page_file: Path, tmp_path: Path) -> None:
    text = page_file.read_text()
    packed = data_of(text)["rows"][5]["packed"]
    path = tmp_path / "damaged.html"
    path.write_text(text.replace(packed, packed[:40] + packed[60:]))
    page = browser.new_page()
    page.goto(path.as_uri() + "#r=5")
    page.wait_for_selector("#detail p:has-text('the file may be damaged')")
    page.close()


def test_hover_shows_every_stage_under_each_method(opened: Any) -> None:
    opened.hover("#detail .panel:nth-child(2) [data-token='4']")
    table = opened.text_content("#inspector")
    for word in ("pass", "pure", "pass-min", "N(process)", "return_to_go", "advantage", "stream"):
        assert word in table
    assert len(opened.query_selector_all("#detail .panel")) == 3


def test_filters_search_and_order(opened: Any) -> None:
    data = data_of(opened.content())
    everything = {row["row"]: row for row in data["rows"]}
    assert len(listed(opened)) == 24
    opened.select_option("#outcome", "right")
    assert set(listed(opened)) == {row for row in everything if row % 2}
    opened.select_option("#outcome", "")
    opened.select_option("#finding", "0")
    assert set(listed(opened)) == {5, 9}
    opened.select_option("#finding", "")
    opened.select_option("#group", "g0")
    assert set(listed(opened)) == {0, 1, 2, 3}
    opened.select_option("#group", "")
    opened.fill("#longest", "3")
    assert listed(opened) == []
    opened.fill("#longest", "")
    opened.fill("#search", "onerror")
    assert len(listed(opened)) == 24  # it is in every prompt
    opened.fill("#search", "line 24")
    opened.wait_for_function("document.querySelectorAll('#list button').length === 1")
    assert listed(opened) == [23]
    opened.fill("#search", "")
    opened.select_option("#order", "best 0")
    best = sorted(everything, key=lambda row: (-everything[row]["means"]["pass"], row))
    assert listed(opened) == best
    opened.select_option("#order", "flip")
    assert listed(opened) == sorted(everything, key=lambda row: (-everything[row]["flip"], row))


def test_colours_follow_the_chosen_layer(opened: Any) -> None:
    opened.evaluate("location.hash = '#r=6'")
    layer = opened.query_selector_all("#layer option")
    names = {x.text_content(): x.get_attribute("value") for x in layer}
    assert {"final advantage", "stream: process", "stage: return_to_go"} <= set(names)
    opened.select_option("#layer", names["stream: process"])
    assert len(opened.query_selector_all("#detail .panel")) == 1
    colours = [
        x.evaluate("x => x.style.backgroundColor")
        for x in opened.query_selector_all("#detail [data-token]")
    ]
    assert colours[0] == colours[2] != colours[3] == colours[5]


def test_keys_move_between_responses_and_tokens(opened: Any) -> None:
    rows = listed(opened)
    opened.keyboard.press("j")
    assert opened.evaluate("location.hash") == f"#r={rows[1]}"
    opened.keyboard.press("k")
    assert opened.evaluate("location.hash") == f"#r={rows[0]}"
    opened.focus("#detail .tokens")
    opened.keyboard.press("ArrowRight")
    opened.keyboard.press("ArrowRight")
    assert opened.evaluate("location.hash") == f"#r={rows[0]}&t=1"
    opened.keyboard.press("/")
    opened.keyboard.type("jk")
    assert opened.input_value("#search") == "jk"
    opened.keyboard.press("Escape")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_widths_and_themes(browser: Any, page_file: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(page_file.as_uri() + "#r=5&s=1")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    page.wait_for_selector("#inspector:not([hidden])")
    assert fits(page, width)
    assert serious_faults(page) == []
    context.close()


def test_the_page_without_scripts_keeps_its_findings(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert len(page.query_selector_all(".finding")) == 3
    assert page.is_visible("#unstarted")
    assert not page.is_visible("#controls")
    context.close()
