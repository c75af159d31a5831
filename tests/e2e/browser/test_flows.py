"""What people do on the dashboard, done by a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from deadletter import Query, State, Task, TaskNotFound

from ..servers import Serving
from .conftest import letters

pytestmark = pytest.mark.full


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of the store."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def dead(dlq) -> int:
    return dlq.sync.stats().by_state["dead"]


def comes_true(page, said: str) -> None:
    """Wait until a page's expression holds; the browser's own waiting evaluates text, which the policy forbids."""
    until(lambda: page.evaluate(said) or page.wait_for_timeout(20))


def connected(page) -> None:
    """Wait until the stream of events is open: what happens from then on is heard."""
    page.locator("body[data-live]").wait_for(state="attached")


def test_a_cause_leads_to_its_letters(tab, dlq):
    letters(dlq, 2, "report.build", KeyError)
    page = tab("/")
    assert page.locator(".cause").count() == 2
    assert page.locator(".cause .n").all_text_contents() == ["6", "2"]
    page.locator(".cause h3 a").nth(1).click()
    page.wait_for_url("**/letters?fingerprint=*")
    assert page.locator(".total").inner_text() == "2 letters match"


def test_charts_are_drawn_under_the_policy(tab):
    page = tab("/")
    page.wait_for_selector(".chart canvas")
    assert page.locator(".chart .u-legend").count() >= 1


def test_filters_combine_and_live_in_the_url(tab, dlq):
    letters(dlq, 3, "report.build", KeyError)
    page = tab("/letters")
    page.get_by_label("Type", exact=True).fill("report.*")
    page.get_by_label("Text in the error").fill("NO ANSWER")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url(re.compile(r"type=report"))
    assert page.locator(".total").inner_text() == "3 letters match"
    elsewhere = tab(page.url)
    assert elsewhere.locator(".total").inner_text() == "3 letters match"
    page.get_by_role("link", name="Remove the filter type").click()
    page.wait_for_url(re.compile(r"letters\?error_contains="))
    assert page.locator(".total").inner_text() == "9 letters match"
    page.go_back()
    assert page.locator(".total").inner_text() == "3 letters match"


def test_selected_letters_are_retried(tab, dlq):
    page = tab("/letters")
    assert page.get_by_role("button", name="Retry selected").is_disabled()
    boxes = page.locator('.row input[name="ids"]')
    boxes.nth(0).check()
    boxes.nth(2).check()
    page.get_by_role("button", name="Retry 2 selected").click()
    page.wait_for_url("**/review?**")
    assert page.locator("h1").inner_text() == "Retry 2 letters"
    assert dead(dlq) == 6
    page.get_by_role("button", name="Retry 2 letters").click()
    page.wait_for_url("**/operations/*")
    page.get_by_text("100 %").first.wait_for()
    assert dead(dlq) == 4


def test_all_that_match_are_retried_at_a_rate_and_called_off(tab, dlq):
    letters(dlq, 200)
    page = tab("/letters?type=email.*")
    page.get_by_role("link", name="Act on all").click()
    page.get_by_label("At most so many a second").fill("10")
    page.get_by_role("button", name="Retry 206 letters").click()
    page.wait_for_url("**/operations/*")
    first = page.locator(".percent").inner_text()
    comes_true(page, f"document.querySelector('.percent').textContent !== {first!r}")
    page.get_by_role("button", name="Call it off").click()
    page.locator(".progress-word .state", has_text="cancelled").wait_for()
    left = dead(dlq)
    assert 0 < left < 206
    page.goto("/operations")
    assert "cancelled" in page.locator(".table").inner_text()


def test_a_purge_wants_its_count_typed(tab, dlq):
    page = tab("/review?action=purge&type=email.*", expect=("400",))
    button = page.get_by_role("button", name="Purge 6 letters")
    button.click()
    assert "/review" in page.url  # the browser asks for the field
    page.get_by_label("Type 6 to go on").fill("5")
    button.click()
    page.get_by_role("alert").wait_for()
    assert dead(dlq) == 6
    page.go_back()
    page.get_by_label("Type 6 to go on").fill("6")
    page.get_by_role("button", name="Purge 6 letters").click()
    page.get_by_text("100 %").first.wait_for()
    assert dead(dlq) == 0


def test_an_erase_takes_every_state_and_tells_how_far_it_came(tab, dlq):
    """An operation like the others: with a count to type, a rate, a reason; and afterwards no trace."""
    waiting = dlq.sync.enqueue(Task(type="email.send", delay=3600))
    page = tab("/review?type=email.*&action=erase")
    assert page.locator("h1").inner_text() == "Erase 7 tasks"
    assert page.locator(".sample .state-pending").count() == 1
    page.get_by_label("Why").fill("asked for")
    page.get_by_label("Type 7 to go on").fill("7")
    page.get_by_role("button", name="Erase 7 tasks").click()
    page.wait_for_url("**/operations/*")
    page.get_by_text("100 %").first.wait_for()
    assert dead(dlq) == 0
    with pytest.raises(TaskNotFound):
        dlq.sync.get(waiting)


def test_a_letter_is_edited_with_a_diff(tab, dlq):
    task_id = letters(dlq, 1, "edit.me")[0]
    page = tab(f"/letters/{task_id}")
    area = page.get_by_role("textbox", name="Payload")
    area.fill(area.input_value().replace("user0@", "user99@"))
    page.get_by_label("Why").fill("a typo")
    page.get_by_role("button", name="See what changes").click()
    page.locator("#diff").wait_for()
    assert "user0@" in page.locator("#diff del").inner_text()
    assert "user99@" in page.locator("#diff ins").inner_text()
    page.get_by_role("button", name="Retry with this edit").click()
    page.get_by_role("status").filter(has_text="Sent back with the edit").wait_for()
    record = dlq.sync.get(task_id)
    assert record.state is State.PENDING
    assert record.task.payload == {"n": 0, "card": "4111", "to": "user99@example.com"}
    assert "Edited and sent back" in page.locator(".timeline").inner_text()


def test_a_call_is_copied(tab, dlq):
    task_id = letters(dlq, 1)[0]
    page = tab(f"/letters/{task_id}", permissions=["clipboard-read", "clipboard-write"])
    for label, said in (("curl", "curl -X POST"), ("Command line", "deadletter retry"), ("Python", "await dlq.retry")):
        page.get_by_role("button", name=f"Copy the {label} call").click()
        page.get_by_role("button", name="Copied").first.wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert said in copied
        assert task_id in copied


def test_types_are_paused_and_resumed(tab, dlq):
    page = tab("/pauses")
    page.get_by_role("combobox", name="Types").fill("email.*")
    page.get_by_label("Why").fill("mail is down")
    page.get_by_role("button", name="Pause").click()
    page.locator(".card", has_text="mail is down").wait_for()
    assert [pause.types for pause in dlq.sync.paused()] == ["email.*"]
    page.get_by_role("button", name="Resume email.*").click()
    page.get_by_text("Nothing is paused.").wait_for()
    assert dlq.sync.paused() == []


def test_news_never_move_a_row(tab, dlq):
    """A death is counted in a badge, a retry elsewhere marks its row; every row stays where it was."""
    page = tab("/letters")
    connected(page)
    places = "[...document.querySelectorAll('.row[data-id]')].map(row => [row.dataset.id, row.offsetTop])"
    before = page.evaluate(places)
    newest = before[0][0]
    letters(dlq, 1, "late")
    letters(dlq, 1, "later")
    page.get_by_role("button", name="2 new letters").wait_for()
    dlq.sync.retry(newest)
    page.locator(f'.row[data-id="{newest}"] .gone', has_text="retried").wait_for()
    assert page.evaluate(places) == before
    page.get_by_role("button", name="2 new letters").click()
    comes_true(
        page,
        f"document.querySelectorAll('.row[data-id]').length === 7 && !document.querySelector('[data-id=\"{newest}\"]')",
    )


def test_the_health_line_follows(tab, dlq):
    page = tab("/")
    connected(page)
    letters(dlq, 4, "late")
    comes_true(page, "document.querySelector('.figure.tone-dead .value').textContent === '10'")
    assert page.locator(".cause").count() == 1  # the causes wait for the reader


def test_a_hidden_tab_gives_its_connection_back(tab, dlq):
    """After a minute; once it is looked at again it says that there may be news, and follows as before."""
    page = tab("/", expect=("htmx:", "[object Event]"))
    page.clock.install()
    page.goto("/")
    connected(page)
    turn = (
        "how => { Object.defineProperty(document, 'visibilityState', {value: how, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }"
    )
    page.evaluate(turn, "hidden")
    page.clock.fast_forward(61_000)
    page.locator("body:not([data-live])").wait_for(state="attached")
    letters(dlq, 2, "late")
    assert page.locator("#line").is_hidden()
    page.evaluate(turn, "visible")
    page.get_by_role("button", name="There may be news").wait_for()
    comes_true(page, "document.querySelector('.figure.tone-dead .value').textContent === '8'")
    letters(dlq, 1, "later")
    page.get_by_role("button", name="1 new letter").wait_for()


def test_two_tabs_race_for_one_letter(tab, dlq):
    task_id = letters(dlq, 1, "raced")[0]
    one, two = tab(f"/letters/{task_id}"), tab(f"/letters/{task_id}", expect=("409",))
    one.get_by_role("button", name="Retry", exact=True).click()
    one.get_by_role("status").filter(has_text="Sent back").wait_for()
    two.get_by_role("button", name="Retry", exact=True).click()
    two.get_by_role("alert").wait_for()
    assert "pending" in two.get_by_role("alert").inner_text()
    assert dlq.sync.get(task_id).replays == 1


def test_two_tabs_race_for_one_purge(tab, dlq):
    pages = [tab("/review?action=purge&type=email.*") for _ in range(2)]
    for page in pages:
        page.get_by_label("Type 6 to go on").fill("6")
        page.get_by_role("button", name="Purge 6 letters").click(no_wait_after=True)
    for page in pages:
        page.get_by_text("100 %").first.wait_for()
    purged = [int(re.search(r"Purged\s+(\d+)", page.locator(".progress-box").inner_text())[1]) for page in pages]
    assert sum(purged) == 6
    assert dead(dlq) == 0


def test_an_open_page_outlives_its_server(tab, dlq, url, server):
    """Its loss is shown; the operation goes on with the next server, and the page with it."""
    letters(dlq, 60)
    watching = tab("/", expect=("net::ERR", "htmx:", "[object Event]"))
    connected(watching)
    page = tab("/review?type=email.*")
    page.get_by_label("At most so many a second").fill("8")
    page.get_by_role("button", name="Retry 66 letters").click()
    page.wait_for_url("**/operations/*")
    until(lambda: dead(dlq) < 66)
    server.process.kill()
    server.process.communicate()
    watching.get_by_text("The connection to the server is lost").wait_for()
    left = dead(dlq)
    assert left > 0
    with Serving(url, port=server.port):
        page.get_by_text("100 %").first.wait_for(timeout=60_000)
        watching.get_by_text("The connection to the server is lost").wait_for(state="hidden")
        comes_true(watching, "document.querySelector('.health .value').textContent === '0'")
        assert dead(dlq) == 0


def test_reading_and_forms_work_without_scripts(tab, dlq):
    page = tab("/", java_script_enabled=False)
    assert page.locator(".cause .spark path").count() >= 1
    page.locator(".cause h3 a").first.click()
    assert page.locator(".total").inner_text() == "6 letters match"
    page.locator(".c-type a").first.click()
    assert "Traceback (most recent call last)" in page.locator(".traceback").first.inner_text()
    page.get_by_role("button", name="Retry", exact=True).click()
    page.get_by_role("status").filter(has_text="Sent back").wait_for()
    assert dead(dlq) == 5
    page.goto("/review?type=email.*")
    page.get_by_role("button", name="Retry 5 letters").click()
    page.wait_for_url("**/operations/*")
    until(lambda: dead(dlq) == 0)


def test_keys_walk_select_and_open(tab):
    page = tab("/letters")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("x")
    assert page.locator('.row input[name="ids"]').nth(1).is_checked()
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**/letters/*")
    page.keyboard.press("g")
    page.wait_for_url(re.compile(r":\d+/$"))
    page.keyboard.press("/")
    page.wait_for_url("**/letters")
    page.keyboard.press("/")
    page.keyboard.type("glx")
    assert page.get_by_label("Text in the error").input_value() == "glx"


def test_a_cancelled_task_is_gone(tab, dlq):
    task_id = dlq.sync.enqueue(Task(type="waits"))
    page = tab(f"/letters/{task_id}")
    page.get_by_role("button", name="Cancel this task").click()
    page.get_by_role("status").filter(has_text="Cancelled").wait_for()
    assert dlq.sync.list(Query(state="pending")).total == 0
