"""Templates: what they escape, and what they refuse to leave out."""

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from maskdet.evaluation.intervals import Estimate
from maskdet.report.charts import Chart, Dot, roc_chart
from maskdet.report.templating import figure, interval, percent, rendered, thousands

STRANGE = "<b>&\"'"


def test_texts_are_escaped_in_charts_and_pages():
    drawn = Chart(STRANGE, STRANGE, STRANGE, dots=[Dot((0, 1), 3, "mark", STRANGE)]).drawn()
    assert isinstance(drawn, Markup) and "<b>" not in drawn
    assert drawn.count("&lt;b&gt;&amp;&#34;&#39;") == 5  # the label twice, two axes, a dot


def test_a_value_that_a_template_misses_is_an_error():
    with pytest.raises(UndefinedError):
        rendered("faces.html.j2", facts="", notes=[], descriptions={}, rates=(), curve=None)


def test_a_place_is_counted_from_the_lower_left():
    # The frame is 320 units wide and high, from 52 at the left and 12 at the top.
    drawn = roc_chart(*([0.0, 0.25, 1.0], [0.0, 1.0, 1.0]), (0.5, 0.25))
    assert 'class="curve" points="52.0,332.0 132.0,12.0 372.0,12.0"' in drawn
    assert '<circle class="mark" cx="212.0" cy="252.0" r="5.0">' in drawn


def test_figures_have_their_forms():
    assert [figure(0.98765), figure(1 / 3, 2), figure(None)] == ["0.9877", "0.33", "—"]
    assert [thousands(1234567), percent(0.956), percent(0.0125, 2)] == ["1,234,567", "96%", "1.25%"]
    assert interval(Estimate("m", 0.5, 0.25, 0.75, "wilson", 4)) == "0.2500 – 0.7500"
    assert interval(Estimate("m", None, None, None, "none", 0)) == ""
