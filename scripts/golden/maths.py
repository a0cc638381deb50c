"""Expressions that MATH's authors' code calls the same, or not.

    python scripts/golden/maths.py MATH       # a clone of github.com/hendrycks/math; writes test/golden/maths.json"""

import contextlib
import io
import itertools
import json
import sys
from pathlib import Path

ROOT = Path(sys.argv[1])
sys.path.insert(0, str(ROOT / "modeling"))
import math_equivalence as theirs  # noqa: E402

namespace = {}
source = (ROOT / "modeling" / "dataset" / "util.py").read_text()
exec(source[: source.index("def only_until_first_boxed")], namespace)

GROUPS = [
    ["\\frac{1}{2}", "\\frac12", "\\dfrac{1}{2}", "\\tfrac12", "1/2", "0.5", ".5", "\\frac 1 2", "2/4", "x=0.5", "x = \\frac{1}{2}"],
    ["10", "10\\%", "10%", "\\$10", "10^\\circ", "10^{\\circ}", "10\\text{ cm}", "10 ", "\\left10\\right", "x=10", "area=10", "010", "10.0"],
    ["\\sqrt{3}", "\\sqrt3", "2\\sqrt3", "2\\sqrt{3}", "\\sqrt 3", "\\sqrt"],
    ["(1,2)", "( 1, 2 )", "\\left(1,2\\right)", "(1,\\!2)", "(2,1)"],
    ["\\frac{a}{b}", "\\frac{a}b", "\\frac ab", "\\frac{72}1", "\\frac1{72}", "\\frac", "\\frac1"],
    ["-3/4", "-\\frac{3}{4}", "\\frac{-3}{4}", "3/-4", "03/4", "a/b"],
    ["", " ", "\n", "0", "{.5}", "{0.5}", " .5", "1 .5"],
    ["5\\text{ m}\\text{ s}", "5\\text{ m}", "5", "\\text{five}"],
]
TEXTS = [
    "so \\boxed{3} and \\boxed{\\frac{1}{2}}.", "\\fbox{7}", "\\boxed{a{b}c} rest", "\\boxed{open", "none", "\\boxed{}", "\\fbox{1} then \\boxed{2}",
    "\\boxed{2} then \\fbox{1}", "$\\boxed{\\left(1,2\\right)}$ done",
]


def boxed(text):
    found = namespace["last_boxed_only_string"](text)
    if found is None:
        return None
    for start in ("\\boxed{", "\\fbox{"):
        if found.startswith(start):
            return found[len(start):-1]
    return None


with contextlib.redirect_stdout(io.StringIO()):
    pairs = [[a, b, bool(theirs.is_equiv(a, b))] for group in GROUPS for a, b in itertools.product(group, group)]
out = Path(__file__).parents[2] / "test" / "golden" / "maths.json"
out.write_text(json.dumps({"pairs": pairs, "boxed": [[text, boxed(text)] for text in TEXTS]}) + "\n")
print(len(pairs), out.stat().st_size)
