from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from deadletter import DeadLetterQueue, InvalidSetting
from deadletter.settings import api_tokens, known_queues, load_app, queue_options


def test_an_empty_environment_gives_the_defaults() -> None:
    assert queue_options({}) == {"backend": "sqlite:///deadletter.db"}


def test_an_empty_variable_counts_as_unset() -> None:
    assert queue_options({"DEADLETTER_URL": "", "DEADLETTER_DLQ_TTL": ""}) == {"backend": "sqlite:///deadletter.db"}


def test_each_variable_is_an_option() -> None:
    options = queue_options(
        {
            "DEADLETTER_URL": "memory://",
            "DEADLETTER_QUEUE": "mail",
            "DEADLETTER_RETRY_DELAYS": "5, 30,2m",
            "DEADLETTER_DLQ_TTL": "7d",
            "DEADLETTER_ALERT_THRESHOLD": "25",
            "DEADLETTER_RELEASE": "v7",
            "DEADLETTER_REDACT": "card_number, *.email",
            "DEADLETTER_SPOOL": "captures.spool",
        }
    )
    assert options == {
        "backend": "memory://",
        "name": "mail",
        "retry_delays": (5, 30, 120),
        "dlq_ttl": 604800,
        "alert_threshold": 25,
        "release": "v7",
        "redact": ("card_number", "*.email"),
        "spool": "captures.spool",
    }
    assert DeadLetterQueue(**options).name == "mail"


def test_letters_may_be_kept_for_ever() -> None:
    assert queue_options({"DEADLETTER_DLQ_TTL": "None"})["dlq_ttl"] is None


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DEADLETTER_URL", "deadletter.db"),
        ("DEADLETTER_QUEUE", "a\nb"),
        ("DEADLETTER_QUEUE", "q" * 101),
        ("DEADLETTER_RETRY_DELAYS", "5,soon"),
        ("DEADLETTER_RETRY_DELAYS", ","),
        ("DEADLETTER_DLQ_TTL", "for ever"),
        ("DEADLETTER_ALERT_THRESHOLD", "0"),
        ("DEADLETTER_ALERT_THRESHOLD", "1.5"),
        ("DEADLETTER_ALERT_THRESHOLD", "ten"),
        ("DEADLETTER_REDACT", "a..b"),
        ("DEADLETTER_REDACT", "$a"),
        ("DEADLETTER_RETRY_DELAYS", "5,999999999w"),
        ("DEADLETTER_DLQ_TTL", "999999999w"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{variable}: ") as raised:
        queue_options({variable: text})
    assert "\n" not in str(raised.value)


def test_a_url_without_a_scheme_is_not_repeated_since_it_may_hold_a_password() -> None:
    with pytest.raises(InvalidSetting) as raised:
        queue_options({"DEADLETTER_URL": "user:hunter2@host"})
    assert "hunter2" not in str(raised.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory whose modules can be imported and are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def test_an_app_of_the_working_directory_is_loaded(here: Path) -> None:
    (here / "shop_a.py").write_text(
        "from deadletter import DeadLetterQueue\nclass inner:\n    dlq = DeadLetterQueue('memory://', name='shop')\n"
    )
    assert load_app("shop_a:inner.dlq").name == "shop"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("shop", "names no queue; write it as module:attribute"),
        ("shop:", "names no queue"),
        (":dlq", "names no queue"),
        ("no_such_shop:dlq", "there is no module 'no_such_shop' here"),
        ("shop_b:dlq", "module 'shop_b' has no 'dlq'"),
        ("shop_b:number", "shop_b:number is a int; it must be a DeadLetterQueue"),
        ("shop_c:dlq", "importing 'shop_c' failed: ZeroDivisionError: division by zero"),
        ("shop_d:dlq", "importing 'shop_d' failed: ModuleNotFoundError: No module named 'no_such_part'"),
        ("shop_e:dlq", "importing 'shop_e' failed: InvalidSetting: url: nobody here knows nowhere://"),
    ],
)
def test_what_is_no_app_is_told_in_one_line(here: Path, target: str, said: str) -> None:
    (here / "shop_b.py").write_text("number = 7\n")
    (here / "shop_c.py").write_text("1 / 0\n")
    (here / "shop_d.py").write_text("import no_such_part\n")
    (here / "shop_e.py").write_text("import deadletter\ndlq = deadletter.DeadLetterQueue('nowhere://')\n")
    with pytest.raises(InvalidSetting, match="^--app: ") as raised:
        load_app(target, setting="--app")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_queues_of_this_process_are_known_while_somebody_holds_them() -> None:
    names = ["b-known", "a-known"]
    held = [DeadLetterQueue("memory://", name=name) for name in names]
    assert [queue.name for queue in known_queues() if queue.name in names] == sorted(names)
    assert all(queue in known_queues() for queue in held)
    held.clear()
    gc.collect()
    assert not [queue for queue in known_queues() if queue.name in names]


def test_a_module_that_ends_itself_is_no_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ends_itself.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(
        InvalidSetting, match=r"importing 'ends_itself' failed: SystemExit: 3 \(.*ends_itself.py, line 2\)"
    ):
        load_app("ends_itself:dlq")


def test_tokens_come_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    assert api_tokens({"DEADLETTER_API_TOKENS": ""}) == ("DEADLETTER_API_TOKENS", None)
    assert api_tokens({"DEADLETTER_API_TOKENS": "read:a"}) == ("DEADLETTER_API_TOKENS", "read:a")
    file = tmp_path / "tokens"
    file.write_text("read:a\nadmin:b,write:c\n")
    said = api_tokens({"DEADLETTER_API_TOKENS_FILE": str(file)})
    assert said == ("DEADLETTER_API_TOKENS_FILE", "read:a,admin:b,write:c")
