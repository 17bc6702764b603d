"""What is compiled together with the configuration that is wanted next."""

from __future__ import annotations

from autotuner.search.ahead import built_together
from autotuner.search.gain_model import Outlook
from toto_core.settings import RuntimeSettings

DEFAULT = RuntimeSettings(compile_mode="default")
PACKED = DEFAULT.replace(freezing=True)
BF16 = DEFAULT.replace(precision="bf16")
LAYER = DEFAULT.replace(compile_scope="layer")
TUNED = RuntimeSettings(compile_mode="max-autotune")


def look(settings: RuntimeSettings, seconds: float = 20.0, gain: float = 0.1) -> Outlook:
    return Outlook(settings=settings, gain=gain, chance=0.5, seconds=seconds)


def test_what_is_sure_to_follow_goes_before_what_promises_most() -> None:
    looks = [look(DEFAULT), look(BF16, gain=0.5), look(PACKED)]

    assert built_together(DEFAULT, [PACKED], looks, slots=2, seconds=100.0) == (DEFAULT, PACKED)
    assert built_together(DEFAULT, [], looks, slots=2, seconds=100.0) == (DEFAULT, BF16)


def test_a_cpu_that_would_wait_for_the_longest_build_gets_more() -> None:
    looks = [look(DEFAULT), look(TUNED, seconds=65.0, gain=0.9), look(BF16), look(PACKED), look(LAYER)]

    together = built_together(DEFAULT, [], looks, slots=2, seconds=100.0)

    assert together[:2] == (DEFAULT, TUNED)
    assert len(together) == 4  # 20 + 20 + 20 seconds beside 65


def test_nothing_is_begun_that_cannot_be_done_in_time() -> None:
    looks = [look(DEFAULT), look(TUNED, seconds=65.0, gain=0.9), look(BF16)]

    assert built_together(DEFAULT, [TUNED], looks, slots=3, seconds=60.0) == (DEFAULT, BF16)


def test_eager_configurations_and_those_without_a_gain_are_not_built() -> None:
    looks = [look(DEFAULT), look(RuntimeSettings(precision="bf16")), look(BF16, gain=0.0)]

    assert built_together(DEFAULT, [], looks, slots=4, seconds=60.0) == (DEFAULT,)


def test_one_that_has_no_outlook_is_built_alone_or_beside_others() -> None:
    assert built_together(TUNED, [], [], slots=4, seconds=60.0) == (TUNED,)
    assert built_together(TUNED, [], [look(BF16)], slots=4, seconds=60.0) == (TUNED, BF16)
