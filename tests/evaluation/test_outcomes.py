"""What each device is said to be, and why: the same devices that the tally counts."""

import unittest
from collections import Counter

from ota_server.evaluation.device_case import DeviceState
from ota_server.evaluation.outcomes import WORDS, WORST_FIRST, DeviceOutcome
from tests.support.story import OLD, Story, mac


def outcomes_of(story: Story) -> dict[str, DeviceOutcome]:
    """Return what became of each device of a story, by its MAC."""
    return {each.key: each for each in story.feedback.outcomes(story.now_ms)}


class OutcomesTest(unittest.TestCase):
    def test_each_state_that_is_counted_is_that_of_as_many_devices(self):
        story = Story(devices=12)
        story.update(1)
        story.download(2)  # and it says nothing more
        story.download(3)
        story.check(4)
        story.begin(5)
        story.end(5, sent=100, complete=False)
        story.begin(6)
        story.download(7)
        for minutes in (0, 20):
            story.wait(minutes)
            story.check(3)
            story.check(7, "v9-custom")
        tally = story.tally()
        counted = Counter(each.state for each in outcomes_of(story).values())
        for state in DeviceState:
            if state not in (DeviceState.WAITING, DeviceState.NOT_HEARD_FROM):
                with self.subTest(state):
                    self.assertEqual(counted[state], getattr(tally, state))
        self.assertGreaterEqual(len(counted), 5)
        unheard = tally.reach - tally.active - tally.displaced
        self.assertEqual(counted[DeviceState.NOT_HEARD_FROM], unheard)
        self.assertGreater(unheard, 0)

    def test_a_device_that_was_never_heard_from_in_the_wave_is_named_with_its_address(self):
        story = Story(devices=3)
        story.update(1)
        outcome = outcomes_of(story)[mac(2)]
        self.assertEqual(outcome.state, DeviceState.NOT_HEARD_FROM)
        self.assertRegex(outcome.address, r"^\d+\.\d+\.\d+\.\d+$")
        self.assertIn("not been heard from since", outcome.in_words(OLD))

    def test_the_reason_says_how_a_device_has_failed(self):
        story = Story()
        for number in (1, 2, 3):
            story.download(number)
        story.wait(1)
        story.check(2, "v2.0.0")
        story.check(2, OLD)
        story.begin(3)
        story.wait(9 * 60)  # more than twice as long as it waits between two polls
        story.check(1)
        said = {number: outcomes_of(story)[mac(number)].in_words(OLD) for number in (1, 2, 3)}
        self.assertEqual(
            said,
            {
                1: "it had the whole image, and reports v1.0.0 still",
                2: "it ran the release, and went back to v1.0.0",
                3: "it had the whole image, reports v1.0.0, and began to download it again",
            },
        )

    def test_a_device_that_is_silent_as_others_at_its_address_are_is_excused(self):
        homes = dict.fromkeys(range(1, 11), "192.0.2.1")
        story = Story(homes=homes)
        for number in range(1, 11):
            story.check(number)
        story.download(1)
        story.wait(24 * 60)  # nobody at that address is heard from
        outcome = outcomes_of(story)[mac(1)]
        self.assertEqual((outcome.state, outcome.is_excused), (DeviceState.SILENT, True))
        self.assertIn("neither have others", outcome.in_words(OLD))

    def test_each_state_has_words_and_a_place_in_the_list(self):
        self.assertEqual({*WORST_FIRST}, {*DeviceState})
        uncounted = {DeviceState.WAITING, DeviceState.NOT_HEARD_FROM}
        self.assertEqual({*WORDS} | uncounted, {*DeviceState})
