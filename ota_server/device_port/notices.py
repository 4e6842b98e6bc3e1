"""Has notices told while a server runs: its receivers, its watches, what it says of them. I/O.

Loaded only by a server that has a receiver: what it imports takes memory.
"""

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

from ota_server.device_port.notice_status import (
    NoticeStatus,
    ReceiverStatus,
    remove_notice_status,
    take_test_request,
    write_notice_status,
)
from ota_server.model.notice import Delivery, notice_id
from ota_server.model.timestamp import format_time
from ota_server.model.webhook import WebhookUrl
from ota_server.rollouts.notice_watch import NoticeWatch
from ota_server.rollouts.notices import test_notice
from ota_server.system import clock
from ota_server.system.data_dir import log_dir
from ota_server.system.notice_receiver import Receiver, command_receiver, url_receiver
from ota_server.system.secret_file import who_else_reads

log = logging.getLogger(__name__)

_EVERY_SECONDS = 0.5
_KEY_CHARACTERS = 12


class Notices:
    """Those who are told of notices, by a server for all its products."""

    def __init__(
        self, arguments: argparse.Namespace, is_journal_failing: Callable[[], bool]
    ) -> None:
        self._log_dir = log_dir(arguments.data_dir)
        self._is_journal_failing = is_journal_failing
        self._receivers = receivers_of(
            arguments.notify_command, arguments.notify_url, arguments.notify_secret_file
        )
        self._watches: list[NoticeWatch] = []
        self._test = ""
        self._deliveries: dict[str, Delivery] = {}
        self._written: NoticeStatus | None = None
        self._look_at = 0.0
        self._is_said = False
        log.info("notices go to %s", ", ".join(each.name for each in self._receivers))
        _say_how_safe(arguments.notify_url, arguments.notify_secret_file)

    def watch(self, data_dir: Path) -> NoticeWatch:
        """Return what watches one product, until `forget`."""
        watch = NoticeWatch(data_dir, self._is_journal_failing, self._receivers)
        self._watches.append(watch)
        return watch

    def forget(self, watch: NoticeWatch) -> None:
        """Count a watch no more: its product is gone."""
        self._watches.remove(watch)

    def look_after(self) -> None:
        """Test if that was asked for, and write how it is with the receivers."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _EVERY_SECONDS
        if (test := take_test_request(self._log_dir)) is not None:
            self._begin_test(test)
        status = NoticeStatus(
            tuple(
                ReceiverStatus(each.name, each.health, self._waiting(each))
                for each in self._receivers
            ),
            self._test,
            dict(self._deliveries),
        )
        if status == self._written:
            return
        try:
            write_notice_status(self._log_dir, status)
            self._written, self._is_said = status, False
        except OSError as problem:
            if not self._is_said:
                self._is_said = True
                log.warning("%s cannot be written: %s", problem.filename, problem.strerror)

    def _waiting(self, receiver: Receiver) -> int:
        return sum(watch.accounts[receiver.key].waiting for watch in self._watches)

    def _begin_test(self, test: str) -> None:
        deliveries: dict[str, Delivery] = {}
        self._test, self._deliveries = test, deliveries
        notice = test_notice(format_time(clock.now_ms()), test)
        for receiver in self._receivers:

            def note(delivery: Delivery, receiver: Receiver = receiver) -> None:
                deliveries[receiver.name] = delivery
                if delivery.is_told:
                    for watch in self._watches:
                        watch.accounts[receiver.key].try_again_now()

            if not receiver.tell(notice, is_alarm=True, when_ended=note):
                note(Delivery(False, "too many notices in this minute; try again later"))

    def end(self) -> int:
        """Let what is being told end, for two seconds; return how many notices were not told."""
        untold = sum(each.end() for each in self._receivers)
        remove_notice_status(self._log_dir)
        return untold


def receivers_of(
    command: str | None, urls: list[WebhookUrl], secret_file: Path | None
) -> tuple[Receiver, ...]:
    """Return the receivers that options name; the name of each is another one."""
    receivers = [command_receiver(command)] if command else []
    names: dict[str, int] = {}
    for url in dict.fromkeys(urls):
        count = names[url.shown] = names.get(url.shown, 0) + 1
        name = url.shown if count == 1 else f"{url.shown} ({count})"
        key = notice_id(url.url)[:_KEY_CHARACTERS]
        receivers.append(url_receiver(url, secret_file, key, name))
    return tuple(receivers)


def _say_how_safe(urls: list[WebhookUrl], secret_file: Path | None) -> None:
    """Say at the start which notices are not signed, and who can read the secret."""
    if secret_file is not None and (who := who_else_reads(secret_file)):
        log.warning("%s", who)
    if urls and secret_file is None:
        log.info("notices to --notify-url are not signed; --notify-secret-file FILE signs them")
