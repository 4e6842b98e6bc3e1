"""The emergency hold by the API."""

from tests.support.operators import OperatorsCase, some_devices

MAC = "02:00:00:00:00:00"


class ApiHoldTest(OperatorsCase):
    @classmethod
    def prepare(cls) -> None:
        for name in ("version", "firmware", "log"):
            (cls.data_dir / "products" / "plug" / name).mkdir(parents=True)

    def setUp(self):
        self.addCleanup(self.operators.json, "DELETE", "/api/v1/hold")

    def held(self) -> dict[str, object]:
        _, said = self.operators.json("GET", "/api/v1/hold")
        return {each["product"]: (each["reason"], each["user"]) for each in said["holds"]}

    def test_everything_is_held_with_who_and_why_until_that_ends(self):
        status, said = self.operators.json("PUT", "/api/v1/hold", {"reason": "v2 reboots"})
        self.assertEqual((status, said["is_all"]), (200, True))
        self.assertEqual(
            self.held(), {"default": ("v2 reboots", "ann"), "plug": ("v2 reboots", "ann")}
        )
        self.assertEqual(self.operators.json("DELETE", "/api/v1/hold/plug")[0], 204)
        self.assertEqual([*self.held()], ["default"])
        for _ in range(2):
            self.assertEqual(self.operators.json("DELETE", "/api/v1/hold"), (204, None))
        self.assertEqual(self.held(), {})

    def test_a_reason_is_one_line_as_on_the_page(self):
        self.operators.json("PUT", "/api/v1/hold", {"reason": " v2\nreboots "})
        self.assertEqual(self.held()["default"], ("v2 reboots", "ann"))

    def test_one_product_is_held_alone(self):
        status, said = self.operators.json("PUT", "/api/v1/hold/plug")
        self.assertEqual((status, said["is_all"]), (200, False))
        self.assertEqual(self.held(), {"plug": (None, "ann")})
        self.assertEqual(self.operators.json("PUT", "/api/v1/hold/none")[0], 404)

    def test_a_held_device_is_told_its_own_version(self):
        self.operators.json("PUT", "/api/v1/hold")
        (answer,) = self.check_in(some_devices(1, ["v0.9.0"]))
        self.assertEqual(answer.body, b"v0.9.0")
