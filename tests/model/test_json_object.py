"""The one reader of JSON objects: what it refuses, and what it says."""

import unittest

from ota_server.model.json_object import parse_object
from ota_server.model.manifest import BadManifest, parse_manifest
from ota_server.model.refusal import BadPolicy
from ota_server.policy.labels import parse_labels
from ota_server.policy.parse import parse_pins, parse_retries, parse_stopped, parse_targets
from ota_server.policy.rollout_plan import parse_plan, parse_progress


class JsonObjectTest(unittest.TestCase):
    def test_an_object_is_read_and_a_byte_order_mark_is_dropped(self):
        self.assertEqual(parse_object(b'\xef\xbb\xbf{"a": [1]}'), {"a": [1]})

    def test_what_is_not_one_object_is_refused(self):
        for content, said in (
            (b"", "is not JSON"),
            (b"{} {}", "is not JSON"),
            (b"\xff", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b"[]", "is not a JSON object"),
            (b"null", "is not a JSON object"),
            (b'{"a": 1, "a": 1}', "'a' occurs twice"),
            (b'{"a": {"b": 1, "c": 2, "b": 3}}', "'b' occurs twice"),
        ):
            with self.subTest(content[:20]), self.assertRaisesRegex(ValueError, said):
                parse_object(content)

    def test_a_key_that_is_there_twice_is_an_error_in_every_file(self):
        twice = b'{"version": "v1", "version": "v1", "00:11:22:33:44:55": "v1"}'
        for parse in (
            parse_pins,
            parse_targets,
            parse_stopped,
            parse_retries,
            parse_labels,
            parse_plan,
            parse_progress,
            lambda content: parse_manifest(content, "v1"),
        ):
            refused = self.assertRaisesRegex((BadPolicy, BadManifest), "occurs twice")
            with self.subTest(parse.__qualname__), refused:
                parse(twice)
