"""Shows that the trial can fail.

It finds nothing wrong with a server that hands over properly, and finds each
fault of others.

    selftest.py CONTINUITY-LOAD
"""

import sys
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.server import Server  # noqa: E402
from harness.trial import Outcome, Trial  # noqa: E402

client = Path(sys.argv.pop()).resolve()


def trial_of(fault: str, restarts: int = 1) -> Outcome:
    server = Server(
        title=fault, packages=["python3"], version=["/usr/bin/python3", "--version"],
        command=["/usr/bin/python3", "@PROGRAMS@/pretender.py", "@PORT@", fault],
        connect="127.0.0.1:@PORT@", send="hello\\r\\n", expect="hello\\r\\n", pid_file="@DIR@/pretender.pid")
    # Any library will do: the server does by itself what ours is for.
    trial = Trial(server, Path("libc.so.6"), client, restarts=restarts, clients=8, keep=False)
    trial.seconds_to_leave = 1
    trial.seconds_to_take_over = 5
    trial.seconds_to_serve = 2
    return trial.run()


class TheTrial(unittest.TestCase):
    def expect(self, fault: str, *complaints: str, restarts: int = 1) -> None:
        outcome = trial_of(fault, restarts)
        self.assertEqual(outcome.fault, "")
        for complaint in complaints:
            self.assertTrue(any(complaint in failure for failure in outcome.failures), outcome.failures)

    def test_is_content_with_a_proper_restart(self):
        outcome = trial_of("none", restarts=2)
        self.assertTrue(outcome.nothing_lost, (outcome.fault, outcome.failures))
        self.assertEqual((outcome.restarts, outcome.in_flight, outcome.in_flight_whole), (2, 7, 7))
        self.assertEqual(dict(outcome.exits), {"exit 0": 2})

    def test_notices_a_predecessor_that_accepts_on(self):
        self.expect("accept on", "served by an older process")

    def test_notices_a_predecessor_that_leaves_early(self):
        self.expect("leave early", "left (exit 0) with requests in flight", "HalfSent request with generation 1: ")

    def test_notices_a_predecessor_that_stays(self):
        self.expect("stay", "stays 1 s after its last connection")

    def test_notices_a_successor_that_does_not_answer(self):
        self.expect("refuse", "requests ")

    def test_notices_a_successor_that_answers_by_half(self):
        self.expect("short", "requests short")

    def test_notices_a_successor_that_does_not_say_it_took_over(self):
        self.expect("mute", "did not take over")

    def test_notices_a_pid_file_that_is_taken_away(self):
        self.expect("take the pid file", "the pid file names nobody")

    def test_notices_descriptors_that_become_more(self):
        self.expect("leave descriptors", "descriptors of the library after each restart", restarts=6)


if __name__ == "__main__":
    unittest.main()
