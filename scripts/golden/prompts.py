"""Prompt templates as promptsource renders them, with Jinja2 itself.

    python scripts/golden/prompts.py     # writes test/golden/prompts.json (needs jinja2 and pyyaml)

Templates in promptsource's form, of our own words, with everything that the templates of the published data sets use: its white space
(nothing is trimmed), conditions that leave an example out, answers that the row has, methods of Python's texts and lists, values that are
cut at 2,048 characters, ||| in a row's own text. `apply` is what promptsource's Template.apply does."""

import json
import random
from pathlib import Path

import jinja2

OUT = Path(__file__).parents[2] / "test" / "golden" / "prompts.json"
# promptsource's own is in letters, which `upper` changes.
GUARD = "\ue000\ue001\ue000"

ENVIRONMENT = jinja2.Environment(loader=jinja2.BaseLoader())
ENVIRONMENT.globals.update(zip=zip)
ENVIRONMENT.filters["choice"] = random.choice

LONG = " ".join(f"word{i}" for i in range(400))
ROWS = {
    "copa": [
        {"premise": "It rained.", "choice1": "It was wet.", "choice2": "It was dry.", "question": "effect", "label": 0},
        {"premise": "He fell.", "choice1": "He sang.", "choice2": "It was icy.", "question": "cause", "label": 1},
        {"premise": "A ||| B", "choice1": "One ||| two", "choice2": "Three\n", "question": "cause", "label": 0},
    ],
    "social_iqa": [
        {"context": "Kim left.", "question": "Why?", "answerA": "late", "answerB": "tired", "answerC": "ill", "label": "2"},
        {"context": LONG, "question": "Why?", "answerA": "éa", "answerB": "b", "answerC": "c'd \"e\"", "label": "3"},
    ],
    "qasc": [
        {"id": "a", "question": "What melts?", "choices": {"text": ["ice", "stone", "air"], "label": ["A", "B", "C"]}, "answerKey": "A",
         "fact1": "ICE melts when warm.", "fact2": "warm things Melt.", "combinedfact": "Ice melts."},
    ],
    "rte": [
        {"premise": "All is well.", "hypothesis": "Nothing is.", "label": 1},
        {"premise": "  Spaces \n around.\n", "hypothesis": "\ttabs", "label": 0},
        {"premise": "Größe – naïve 漢字 🙂", "hypothesis": "x", "label": 0},
    ],
    "quail": [
        {"context": "It was late.", "question": "When?", "answers": ["early", "late", "noon", "unknown"], "correct_answer_id": 1,
         "metadata": {"author": "N. N.", "pages": [1, 2], "new": True, "none": None}},
    ],
}
LABEL = "{% if label != -1 %}{{ answer_choices[label] }}{% endif %}"
TEMPLATES = {
    "copa": [
        ("a list", "{{ premise }} {% if question == \"cause\" %} because... {% else %} so... {% endif %}\n- {{choice1}}\n- {{choice2}} ||| " + LABEL,
         "{{choice1}} ||| {{choice2}}"),
        ("effects alone", "{% if question == \"effect\" %} \n{{ premise }} What then, \"{{ answer_choices[0] }}\" or \"{{ answer_choices[1] }}\"? ||| "
         + LABEL + "\n{% endif %}", "{{choice1}} ||| {{choice2}}"),
        ("lower", "{{ premise | lower }} {{ premise.upper() }} {{ premise[1:] }} {{ answer_choices | join(\" or \") }} ||| " + LABEL,
         "{{choice1}} ||| {{choice2}}"),
        ("numbered", "{% for choice in answer_choices %}\n{{ loop.index }}. {{ choice }}\n{% endfor %}\n{{ premise }} ||| {{ answer_choices[label] }}",
         "{{choice1}} ||| {{choice2}}"),
        ("numbers", "{{ premise }} ({{ answer_choices | length }}) {{ (label + 1) }} {{ label == 1 }} {{ \"1\" == 1 }} ||| {{ label }}", "0 ||| 1"),
    ],
    "social_iqa": [
        ("from one", "{{context}}\n{{question}}\n{{answer_choices | join(\"\\n- \")}} ||| {{answer_choices[label | int - 1]}}",
         "{{answerA}} ||| {{answerB}} ||| {{answerC}}"),
        ("letters", "{{context}} {{question}} A: {{answerA}} B: {{answerB}} C: {{answerC}} ||| {{ [\"A\", \"B\", \"C\"][label | int - 1] }}", "A ||| B ||| C"),
        ("turned round", "{{context}} Is it \"{{answerA}}\"? ||| {% if label == \"1\" %}yes{% else %}no{% endif %}", "no ||| yes"),
        ("letters of a text", "{% for letter in answerA | list %}{{ letter }}-{% endfor %}{{ answerC.strip('c\"') }} {{ context | trim('.') }} "
         "||| {{answer_choices[label | int - 1]}}", "{{answerA}} ||| {{answerB}} ||| {{answerC}}"),
    ],
    "qasc": [
        ("facts", "If {{ fact1[0]|lower }}{{ fact1[1:]|trim|trim('.') }}, and {{fact2[0]|capitalize }}{{ fact2[1:]|trim|trim('.') }}, then "
         "{{ question[0]|lower }}{{question[1:]|trim('?') }}: {{ choices.text | join(\", \") }}? ||| {{answer_choices[choices.label.index(answerKey)]}}",
         "{{choices.text | join(\"|||\")}}"),
        ("joined", "{% for k in range(choices.text | length) %}{{'. '.join([choices.label[k], answer_choices[k]])}}\n{% endfor %}{{ question | trim(\".?!\") }} "
         "{{ fact1 | capitalize }} ||| {{answer_choices[choices.label.index(answerKey)]}}", "{{choices.text | join(\"|||\")}}"),
        ("found", "{{ question }} {% for choice in choices.label %} {% if choice == answerKey %}here{% else %}{{ choice }}{% endif %}{% endfor %} ||| "
         "{{answer_choices[choices.label.index(answerKey)]}}", "{{choices.text | join(\"|||\")}}"),
    ],
    "rte": [
        ("blocks", "{# a comment #}\n{% set text = premise %}\n  {% if text %}\n{{ text }}\n  {% endif %}\nSo: {{hypothesis}}? ||| {{ answer_choices[label] }}\n",
         "yes ||| no"),
        ("dashes", "{%- if premise -%}\n  {{- premise }}  \n{%- endif -%}\nSo: {{ hypothesis }} ||| {{ answer_choices[label] }}", "yes ||| no"),
        ("ternary", "{{ premise if label == 0 else hypothesis }} {% if premise is defined and nothing is not defined %}there{% endif %} {{ nothing | default(\"none\") }} "
         "||| {{ answer_choices[label] }}", "yes ||| no"),
        ("cut", "{{ premise | truncate(12) }}{{ premise | replace(\"e\", \"3\") }}{{ premise | title }}{{ premise.split()[0] }} ||| {{ answer_choices[label] }}",
         "yes ||| no"),
        ("in", "{% if 'well' in premise and hypothesis not in premise %}well{% endif %}{{ premise | length }} {{ premise.startswith('All') }} "
         "||| {{ answer_choices[label] }}", "yes ||| no"),
        ("its label", "{{ premise }} {{ {\"a\": 1}.a }} ||| {{ [\"no\", \"yes\"][label] }}", "yes ||| no"),
    ],
    "quail": [
        ("letters", "{{ context }} {{ question }}\n{% for k in range(answers | length) %}\n{{'. '.join([answer_choices[k], answers[k]])}}\n{% endfor %}\n"
         "|||\n{{ answer_choices[correct_answer_id] }}", "A ||| B ||| C ||| D"),
        ("texts", "{{ context }} {{ metadata.author }} {{ metadata.pages }} {{ metadata.new }} {{ metadata.none }} {{ answers }} ||| {{ answers[correct_answer_id] }}",
         "{{answers | join(\"|||\")}}"),
    ],
}


def guarded(value):
    if isinstance(value, list):
        return [guarded(one) for one in value]
    return value.replace("|||", GUARD) if isinstance(value, str) else value


def protected(example):
    return {name: guarded(value) for name, value in example.items()}


def parts(rendered):
    return [part.replace(GUARD, "|||").strip() for part in rendered.split("|||")]


def apply(template, choices, example):
    values = protected(example)
    answers = parts(ENVIRONMENT.from_string(choices).render(**values))
    # promptsource leaves them as they are, and cuts a prompt where an answer has a separator in it.
    values["answer_choices"] = guarded(answers)
    cut = template.replace("}}", " | string | truncate(2048) }}")
    rendered = parts(ENVIRONMENT.from_string(cut).render(**values))
    # T0's seqio tasks drop examples whose prompt or target is empty.
    if len(rendered) < 2 or not rendered[0] or not rendered[1]:
        return None
    return {"prompt": rendered[0], "answers": answers, "target": rendered[1]}


cases = {}
for task, templates in TEMPLATES.items():
    cases[task] = {
        "rows": ROWS[task],
        "templates": [{"name": name, "jinja": jinja, "answer_choices": choices} for name, jinja, choices in templates],
        "put": [[apply(jinja, choices, row) for row in ROWS[task]] for _, jinja, choices in templates],
    }
OUT.write_text(json.dumps({"jinja2": jinja2.__version__, "tasks": cases}, ensure_ascii=False, indent=1) + "\n")
print(OUT, OUT.stat().st_size)
