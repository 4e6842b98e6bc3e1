"""Rows of the device table."""

import unittest
from concurrent.futures import ThreadPoolExecutor

from ota_server.journal.packing import Packer
from ota_server.model.device import Device, Download, flatten, unflatten


def device(number: int, image: int | None) -> Device:
    download = None if image is None else Download(f"v{image}", f"{image:064x}", image + 1, number)
    return Device(number, f"v{number}", 2, None, "v1", "192.0.2.7", False, download)


class PackerTest(unittest.TestCase):
    def test_what_was_packed_comes_back(self):
        packer = Packer()
        # Also with more images than share what is known of them.
        devices = [device(0, None), *(device(number, number % 1500) for number in range(3000))]
        rows = [packer.pack(flatten(each)) for each in devices]
        self.assertEqual([unflatten(packer.unpack(row)) for row in rows], devices)

    def test_devices_on_one_image_do_not_each_keep_its_name_and_hash(self):
        packer = Packer()
        plain, begun = (len(packer.pack(flatten(device(7, image)))) for image in (None, 3))
        self.assertLess(begun - plain, 20)

    def test_threads_that_meet_new_images_at_once_mix_none_up(self):
        packer = Packer()
        devices = [device(number, number) for number in range(900)]
        with ThreadPoolExecutor(8) as pool:
            rows = list(pool.map(lambda each: packer.pack(flatten(each)), devices * 3))
        self.assertEqual([unflatten(packer.unpack(row)) for row in rows], devices * 3)
