"""With the tuning, Beam finds the same facts about its steps, in less time."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.coders import BytesCoder
from apache_beam.runners.worker import statesampler
from apache_beam.transforms import core, userstate
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, TimerSpec, on_timer
from apache_beam.utils.counters import CounterFactory

from maskdet.beam import tuning

BAG = BagStateSpec("bag", BytesCoder())
TIMER = TimerSpec("timer", TimeDomain.WATERMARK)
BAG_PARAMETER, TIMER_PARAMETER = beam.DoFn.StateParam(BAG), beam.DoFn.TimerParam(TIMER)


class Plain(beam.DoFn):
    def process(self, element, scale=2):
        yield element * scale


class Stateful(beam.DoFn):
    def process(self, element, bag=BAG_PARAMETER, timer=TIMER_PARAMETER):
        yield element

    @on_timer(TIMER)
    def expire(self, bag=BAG_PARAMETER):
        yield None


@pytest.fixture
def beam_restored(monkeypatch):
    """Beam as it is installed, before and after the test."""
    original = core.get_function_args_defaults
    monkeypatch.setattr(core, "get_function_args_defaults", getattr(original, "_asked", original))
    original = userstate.get_dofn_specs
    monkeypatch.setattr(userstate, "get_dofn_specs", getattr(original, "_asked", original))
    monkeypatch.setattr(statesampler.StateSampler.__init__, "__defaults__", (200,))


@pytest.mark.usefixtures("beam_restored")
def test_beam_finds_the_same_of_steps():
    def found():
        return [
            (userstate.get_dofn_specs(step), core.get_function_arguments(step, "process"))
            for step in (
                Plain(),
                Stateful(),
                Plain(),
                core.CallableWrapperDoFn(str.upper),
                core.CallableWrapperDoFn(max),
                core.CallableWrapperDoFn(Stateful().process),
                core.CallableWrapperDoFn(Plain().process),
            )
        ]

    before = found()
    tuning.spend_less()
    tuning.spend_less()
    assert found() == before == found()
    assert before[1][0] == ({BAG}, {TIMER})
    assert before[5][0] == ({BAG}, {TIMER})  # of a step that took over the other's method
    assert before[6][0] == (set(), set())


@pytest.mark.usefixtures("beam_restored")
def test_what_is_told_of_a_method_is_no_ones_to_change():
    tuning.spend_less()
    names, defaults = core.get_function_arguments(Plain(), "process")
    names.append("more")
    defaults.clear()
    assert core.get_function_arguments(Plain(), "process") == (["element", "scale"], [2])


@pytest.mark.usefixtures("beam_restored")
def test_what_is_told_of_a_step_is_no_ones_to_change():
    tuning.spend_less()
    for found in userstate.get_dofn_specs(Stateful()):
        found.clear()
    assert userstate.get_dofn_specs(Stateful()) == ({BAG}, {TIMER})


@pytest.mark.usefixtures("beam_restored")
def test_a_sampler_sleeps_less():
    def period_ms():
        return statesampler.StateSampler("bundle", CounterFactory()).sampling_period_ms

    assert period_ms() == 200
    tuning.spend_less()
    assert period_ms() == tuning.SAMPLING_PERIOD_MS
