"""The description of the API: it is of the routes that there are, and of nothing else."""

import json
import re
import unittest
from collections.abc import Iterator
from typing import Any

from ota_server.operator_port.api import OPERATIONS, ROUTES
from ota_server.operator_port.api_operation import PATH_PARTS, PREFIX
from ota_server.operator_port.api_schemas import FILTER, FILTER_WORDS, SCHEMAS
from ota_server.operator_port.api_shapes import SHAPES
from ota_server.operator_port.authoriser import Access
from ota_server.operator_port.device_query import FILTER_FIELDS
from ota_server.operator_port.openapi import document
from ota_server.operator_port.schema_check import unfit_parts
from ota_server.operator_port.site_routes import all_routes

DOCUMENT = document(OPERATIONS, "1.2.3", "A token by a command.", reads_openly=True)


def parts_of(value: object) -> Iterator[dict[str, Any]]:
    """Yield all objects within a value."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from parts_of(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from parts_of(each)


def operations(said: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in said["paths"].items()
        for method, operation in methods.items()
    }


class DocumentTest(unittest.TestCase):
    def test_it_has_every_route_of_the_api_and_nothing_else(self):
        routes = {
            (route.method, route.path)
            for route in all_routes().routes
            if route.path.startswith("/api")
        }
        self.assertEqual({*operations(DOCUMENT)}, routes)
        self.assertEqual({(route.method, route.path) for route in ROUTES}, routes)
        self.assertTrue(all(route.path.startswith(f"{PREFIX}/") for route in ROUTES))

    def test_it_is_json_of_openapi_3_2(self):
        self.assertEqual(json.loads(json.dumps(DOCUMENT))["openapi"], "3.2.0")
        self.assertEqual(DOCUMENT["info"]["version"], "1.2.3")

    def test_each_reference_leads_to_something(self):
        for part in parts_of(DOCUMENT):
            if "$ref" in part:
                found: Any = DOCUMENT
                for name in part["$ref"].removeprefix("#/").split("/"):
                    found = found[name]
                self.assertIsInstance(found, dict)

    def test_each_schema_is_referred_to(self):
        named = {part["$ref"] for part in parts_of(DOCUMENT) if "$ref" in part}
        in_paths = [each.schema for each in PATH_PARTS.values()]
        for name, schema in DOCUMENT["components"]["schemas"].items():
            is_named = f"#/components/schemas/{name}" in named
            self.assertTrue(is_named or schema in in_paths, name)

    def test_a_filter_has_the_fields_of_the_page(self):
        self.assertEqual({*FILTER}, {*FILTER_FIELDS})
        self.assertEqual(FILTER_WORDS.keys(), FILTER.keys())

    def test_no_name_stands_for_two_operations_or_two_schemas(self):
        names = [each.name for each in OPERATIONS]
        self.assertEqual(len({*names}), len(names))
        self.assertEqual(SCHEMAS.keys() & SHAPES.keys(), set())

    def test_each_pattern_is_of_the_whole_text_and_fits_its_example(self):
        seen = 0
        for part in parts_of(DOCUMENT):
            if isinstance(part.get("pattern"), str):
                seen += 1
                self.assertRegex(part["pattern"], r"^\^.*\$$")
                re.compile(part["pattern"])
                for example in part.get("examples", ()):
                    self.assertEqual(unfit_parts(example, part, SCHEMAS), [], part)
        self.assertGreater(seen, 20)

    def test_each_example_of_a_body_fits_its_schema(self):
        for each in OPERATIONS:
            if each.body is not None and each.body.example is not None:
                with self.subTest(each.name):
                    found = unfit_parts(each.body.example, each.body.schema, SCHEMAS)
                    self.assertEqual(found, [])

    def test_acting_needs_a_token_everywhere_and_reading_where_the_port_is_not_local(self):
        for reads_openly in (False, True):
            said = operations(document(OPERATIONS, "1", "A token by a command.", reads_openly))
            for each in OPERATIONS:
                security = said[each.method, PREFIX + each.path]["security"]
                is_open = {} in security
                with self.subTest(each.name, reads_openly=reads_openly):
                    self.assertEqual(is_open, reads_openly and each.access is Access.READ)
                    self.assertIn({"token": []}, security)

    def test_whatever_is_not_a_get_needs_the_right_to_act(self):
        for each in OPERATIONS:
            with self.subTest(each.name):
                self.assertEqual(each.access is Access.READ, each.method == "GET")

    def test_a_stream_is_described_by_its_items(self):
        content = operations(DOCUMENT)["GET", f"{PREFIX}/events"]["responses"]["200"]["content"]
        self.assertEqual([*content["text/event-stream"]], ["itemSchema"])
