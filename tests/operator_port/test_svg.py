"""Bars and plots."""

import random
import unittest

from ota_server.operator_port.svg import Layer, Segment, bar, stacked_plot
from tests.support.pages import PageReader


class BarTest(unittest.TestCase):
    def test_the_segments_of_a_bar_fill_it_and_none_is_too_narrow_to_be_seen(self):
        source = random.Random(1)
        for _ in range(100):
            counts = [source.choice((0, 1, 50, 10**6)) for _ in range(source.randint(1, 12))]
            page = PageReader(bar([Segment(each, "v0", "x") for each in counts], "versions"))
            widths = [float(each["width"]) + 1 for each in page.all("rect")]
            with self.subTest(counts):
                self.assertEqual(len(widths), sum(each > 0 for each in counts))
                self.assertAlmostEqual(sum(widths), 1000 if any(counts) else 0, delta=1)
                self.assertTrue(all(width > 4 for width in widths), widths)

    def test_a_segment_leads_to_its_url(self):
        page = PageReader(bar([Segment(3, "good", "3 <up>", '/devices?x="')], "states"))
        self.assertEqual(page.all("a")[0]["href"], '/devices?x="')
        self.assertEqual(page.all("a")[0]["aria-label"], "3 <up>")


class PlotTest(unittest.TestCase):
    def test_layers_lie_upon_each_other(self):
        layers = [Layer("v0", "v1", (10, 0)), Layer("v1", "v2", (0, 10))]
        page = PageReader(stacked_plot((0, 1000), layers, "versions"))
        first, second = (each["points"].split() for each in page.all("polygon"))
        self.assertEqual(second[-2:], first[1::-1])

    def test_a_plot_without_devices_can_be_drawn(self):
        stacked_plot((0, 1000), [], "nothing")
        stacked_plot((0, 1000), [Layer("v0", "v1", (0, 0))], "nothing")


if __name__ == "__main__":
    unittest.main()
