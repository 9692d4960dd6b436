"""The pages of a run and of a difference in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.audit.browser import (
    NEEDS_BROWSER,
    SIZES,
    browser,
    fits,
    opened_page,
    serious_faults,
)
from tests.audit.made_runs import lab_run, step_rows

import stepcredit as sc
from stepcredit.audit.audit_report import audit
from stepcredit.audit.check_registry import AuditInput
from stepcredit.audit.finding import AuditFigure, CheckResult, Finding
from stepcredit.audit.logged_batch import LoggedBatch
from stepcredit.audit.run_log import run_log
from stepcredit.audit.run_report import RunFollower

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytestmark = NEEDS_BROWSER
__all__ = ["browser"]  # a fixture
METHODS = {"pass": sc.PASS(), "grpo": sc.GRPO()}
STEPS = range(1, 31)


def rising(given: AuditInput) -> CheckResult:
    """A figure that rises with the step, and a finding from step 20 on."""
    step = int(given.batch.rows[0].fields["update"])
    figure = AuditFigure(
        "a figure with a long name of many words", step / 30, 8, "steps", 0.0, 1.5, worse="higher"
    )
    found = Finding("rising", "warn", "It is high.", (figure,), "-", topic="a high figure")
    return CheckResult((figure,), (found,) if step >= 20 else ())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of a run of two policies with 30 steps each, and that of a difference."""
    from stepcredit.audit.audit_page import audit_page
    from stepcredit.audit.diff_page import diff_page
    from stepcredit.audit.diff_report import DiffReport

    folder = tmp_path_factory.mktemp("pages")
    log = run_log(lab_run(folder / "run", STEPS, ("one", "two")))
    assert log is not None
    follower = RunFollower(log, METHODS, {"rising": rising})
    for step in follower.due():
        follower.follow(step)
    first, second = (audit(LoggedBatch.of(step_rows(at)), METHODS) for at in (1, 2))
    texts = {
        "run": audit_page(follower.report(), is_growing=True),
        "diff": diff_page(DiffReport(first, second)),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text)
    return {name: folder / f"{name}.html" for name in texts}


def test_a_long_runs_steps_are_strips_with_the_finding_marked(
    browser: Any, pages: dict[str, Path]
) -> None:
    with opened_page(browser, pages["run"]) as page:
        strips = page.query_selector_all(".strip")
        assert len(strips) == 2
        for strip in strips:
            box, [mark] = strip.bounding_box(), strip.query_selector_all("rect")
            marked = mark.bounding_box()
            assert box["width"] > 100
            assert (marked["x"] - box["x"]) / box["width"] == pytest.approx(19 / 30, abs=0.02)
            assert marked["width"] / box["width"] == pytest.approx(11 / 30, abs=0.02)
        assert "one 20 to 30; two 20 to 30" in page.text_content(".spans")
        assert page.is_visible("#reload")


def test_a_dot_of_a_curve_says_its_step(browser: Any, pages: dict[str, Path]) -> None:
    with opened_page(browser, pages["run"]) as page:
        page.hover(".picture .mark >> nth=4")
        assert "step one 5, all: 0.167 (0 to 1.5), n = 8 steps" in page.text_content(".tip")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["run", "diff"])
def test_widths_themes_and_accessibility(
    browser: Any, pages: dict[str, Path], name: str, scheme: str, size: str
) -> None:
    width, height = SIZES[size]
    settings = {"viewport": {"width": width, "height": height}, "color_scheme": scheme}
    with opened_page(browser, pages[name], **settings) as page:
        assert fits(page, width)
        assert serious_faults(page) == []
