"""Makes test/golden/tasks/chat-templates.json: what mergekit's chat templates say of some conversations.

    .venv/bin/pip install mergekit==0.1.5
    .venv/bin/python scripts/golden/chat_templates.py
"""
import importlib.resources
import json
from pathlib import Path

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from mergekit._data import chat_templates

OUT = Path(__file__).resolve().parents[2] / "test" / "golden" / "mergekit" / "chat-templates.json"
system, user, assistant = (lambda text, role=role: {"role": role, "content": text} for role in ("system", "user", "assistant"))
context = {"role": "user_context", "content": " some text\nin two lines "}
conversations = [
    [user("Hello")],
    [system("Be short."), user(" What is 2 + 2? ")],
    [user("Hi"), assistant("Hello!\n"), user("Bye")],
    [system(" Be kind. "), user("Hi"), assistant("Hello!"), user("Who?"), assistant("I.")],
    [user("Read this"), context],
    [user("Hi"), user("again")],
    [assistant("first")],
    [user("Hi"), system("late")],
]


def fail(why):
    raise TemplateError(why)


def main():
    # As transformers sets it up.
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = fail
    made = []
    for name in ("alpaca", "chatml", "exaone", "llama3", "mistral"):
        template = environment.from_string((importlib.resources.files(chat_templates) / f"{name}.jinja").read_text())
        for messages in conversations:
            for prompt in (False, True):
                given = {"messages": messages, "add_generation_prompt": prompt, "bos_token": "<s>", "eos_token": "</s>"}
                try:
                    text = template.render(**given)
                except TemplateError:
                    text = None
                made.append({"name": name, "messages": messages, "prompt": prompt, "text": text})
    OUT.write_text(json.dumps(made, indent=1) + "\n")


main()
