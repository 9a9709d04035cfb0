"""Text that repeats inside a corpus: lines, paragraphs and substrings, recorded as spans and left out at export.

``repeated_spans`` finds them in texts in memory, ``SpanFinder`` in a corpus of any size; ``apply_spans`` leaves them
out of a text. Offsets count characters (Unicode code points), so no span ever cuts one.
"""

from winnow.dedup.spans.apply import apply_spans, repeated_spans
from winnow.dedup.spans.finder import MEMORY, Found, SpanFinder
from winnow.dedup.spans.plan import KINDS, SpanPlan, make_span_plan

__all__ = ["KINDS", "MEMORY", "Found", "SpanFinder", "SpanPlan", "apply_spans", "make_span_plan", "repeated_spans"]
