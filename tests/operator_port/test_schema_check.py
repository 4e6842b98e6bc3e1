"""What fits a schema, as far as those of the API go; a real validator says the same of many."""

import unittest
from typing import Any

from ota_server.operator_port.schema_check import reference, unfit_parts

_SCHEMAS = {"Name": {"type": "string", "pattern": "^[a-z]+$", "x-rule": "a name"}}
_SHAPE = {
    "type": "object",
    "properties": {
        "name": reference("Name"),
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "share": {"type": "number", "exclusiveMaximum": 100},
        "words": {
            "type": "array",
            "items": {"type": "string", "enum": ["a", "b"]},
            "minItems": 1,
            "maxItems": 2,
            "uniqueItems": True,
        },
        "note": {"type": ["string", "null"], "maxLength": 3},
        "is_on": {"type": "boolean"},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def unfit(value: object, schema: Any = _SHAPE) -> list[tuple[str, str]]:
    return [(each.pointer, each.detail) for each in unfit_parts(value, schema, _SCHEMAS)]


class UnfitPartsTest(unittest.TestCase):
    def test_what_fits_has_no_unfit_parts(self):
        for more in (
            {},
            {"size": 9},
            {"size": 1.0},
            {"share": 99.9},
            {"words": ["a", "b"]},
            {"note": None},
            {"note": "äöü"},
            {"is_on": False},
        ):
            with self.subTest(more):
                self.assertEqual(unfit({"name": "x", **more}), [])

    def test_what_does_not_fit_is_named_with_the_reason(self):
        for more, pointer, said in (
            ({"name": 7}, "/name", "is not a text"),
            ({"name": "X"}, "/name", "'X' is not a name"),
            ({"name": "x\n"}, "/name", "'x\\n' is not a name"),
            ({"size": 0}, "/size", "is 0: give 1 to 9"),
            ({"size": 10}, "/size", "is 10: give 1 to 9"),
            ({"size": "5"}, "/size", "is not a whole number"),
            ({"size": True}, "/size", "is not a whole number"),
            ({"size": 1.5}, "/size", "is not a whole number"),
            ({"share": 100}, "/share", "is 100: give less than 100"),
            ({"words": []}, "/words", "has 0 items: give 1 to 2"),
            ({"words": ["a", "a"]}, "/words", "has an item twice"),
            ({"words": ["a", "c"]}, "/words/1", "is not one of a, b"),
            ({"words": "a"}, "/words", "is not a list"),
            ({"note": "1234"}, "/note", "has 4 characters: give 0 to 3"),
            ({"is_on": 0}, "/is_on", "is not true or false"),
            (
                {"a/b~": 0},
                "/a~1b~0",
                "is not known here: use name, size, share, words, note, is_on",
            ),
        ):
            with self.subTest(more):
                self.assertEqual(unfit({"name": "x", **more}), [(pointer, said)])

    def test_what_is_missing_is_named(self):
        self.assertEqual(unfit({}), [("/name", "is missing")])
        self.assertEqual(unfit([]), [("", "is not an object")])

    def test_of_many_unfit_parts_the_first_are_named(self):
        schema = {"type": "array", "items": {"type": "string"}}
        self.assertEqual(len(unfit([0] * 1000, schema)), 20)
