"""What a scrape of a real server says of its devices, its journal and itself."""

from tests.support.client import until
from tests.support.fleet import NEW, OLD
from tests.support.metrics import Labels, read_metrics
from tests.support.operators import Operators, OperatorsCase, some_devices

COUNT = 6


class MetricsPageTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        (cls.data_dir / "log" / "devices.jsonl").write_bytes(b"this is not a record\n")

    @classmethod
    def come(cls) -> None:
        cls.check_in(some_devices(COUNT))
        cls.await_devices(COUNT)

    def scraped(self) -> dict[str, dict[Labels, float]]:
        """Return what somebody on this machine gets, who has no token."""
        answer = Operators(self.server.admin_port).get("/metrics")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.fields["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        return read_metrics(answer.body.decode("utf-8"))

    def test_the_states_and_the_versions_add_up_to_all_devices(self):
        found = self.scraped()
        self.assertEqual(sum(found["ota_devices"].values()), COUNT)
        self.assertEqual(
            found["ota_devices_by_version"],
            {
                (("version", OLD),): COUNT / 2,
                (("version", NEW),): COUNT / 2,
                (("version", "other"),): 0,
            },
        )

    def test_requests_are_those_that_the_server_has_answered(self):
        ok = (("route", "version.txt"), ("code", "200"))
        self.assertEqual(self.scraped()["ota_requests_total"][ok], COUNT)

    def test_lines_that_are_no_records_are_counted_old_and_new_ones(self):
        def skipped() -> float:
            return self.scraped()["ota_journal_skipped_lines_total"][()]

        self.assertEqual(skipped(), 1)
        with (self.data_dir / "log" / "devices.jsonl").open("ab") as journal:
            journal.write(b"nor is this\n")
        self.assertTrue(until(lambda: skipped() == 2))
