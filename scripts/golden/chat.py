"""Conversations as transformers reads them: ids, which of them the assistant says, and what stands before the answer.

    python scripts/golden/chat.py     # writes test/golden/chat/: two small tokenizers, and chat.json

transformers says which tokens are the assistant's only where the template marks them ({% generation %}): every template is here twice, as
models have it, and with the marks. Also the loss of a conversation: the mean cross-entropy of what is said in it."""

import json
from pathlib import Path

import torch
import transformers as tf
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).parents[2] / "test" / "golden" / "chat"
GENERATION = Path(__file__).parents[2] / "test" / "golden" / "models"

SAMPLE = """the cat sat on the mat and the dog ate its food. who are you? i am a helper that answers questions.
Hello there! What is two and two? It is four. Paris is the capital of France, and Rome of Italy.
def add(a, b):\n    return a + b\n\nuser assistant system Let me think. Answer: yes, no, maybe."""


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|im_start|>", "<|im_end|>", "<|head|>", "<|/head|>", "<|eot|>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([SAMPLE], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|head|>", eos_token="<|im_end|>")


def sentence_piece():
    """As Llama 2's: spaces are ▁, what is not known is bytes."""
    pieces = [f"<0x{i:02X}>" for i in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<s>", "</s>", *pieces], show_progress=False)
    tokenizer.train_from_iterator(SAMPLE.split("\n"), trainer)
    state = json.loads(tokenizer.to_str())
    # Bytes are pieces of the vocabulary, not special tokens.
    state["added_tokens"] = [t for t in state["added_tokens"] if not t["content"].startswith("<0x")]
    state["decoder"] = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


BEGIN, END = "{% generation %}", "{% endgeneration %}"
# Of every template: as models have it, BEGIN and END being taken out, and with them.
templates = {
    # Turns between signs, one after the other.
    "signs": ("bytes", "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}BEGIN{{ m['content'] + '<|im_end|>' }}END{{ '\n' }}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
    # Heads of turns; contents lose the spaces around them; a statement a line.
    "heads": ("bytes", """{{- bos_token }}
{%- for m in messages %}
    {{- '<|head|>' + m['role'] + '<|/head|>\n\n' }}
    {%- if m['role'] == 'assistant' %}
        {%- BEGIN %}{{- m['content'] | trim + '<|eot|>' }}{%- END %}
    {%- else %}
        {{- m['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|/head|>\n\n' }}
{%- endif %}
"""),
    # Words in brackets, and an end behind a space; a system's message stands in the first question.
    "brackets": ("pieces", "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}{% for m in turns %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (first if loop.first else '') + m['content'] + ' [/INST] ' }}{% else %}BEGIN{{ m['content'] + ' ' + eos_token }}END{% endif %}{% endfor %}"),
    # The last answer alone has a place for thoughts in front of it.
    "thoughts": ("bytes", "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}BEGIN{{ m['content'] + '<|im_end|>' }}END{{ '\n' }}{% else %}{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"),
    # Plain headlines, and nothing that ends an answer.
    "headlines": ("pieces", "{% for m in messages %}{{ '### ' + m['role'] + ':\n' }}{% if m['role'] == 'assistant' %}BEGIN{{ m['content'] }}END{% else %}{{ m['content'] }}{% endif %}{% if not loop.last %}{{ '\n\n' }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '\n\n### assistant:\n' }}{% endif %}"),
}
plain = lambda text: text.replace("{%- BEGIN %}", "").replace("{%- END %}", "").replace("BEGIN", "").replace("END", "")
marked = lambda text: text.replace("{%- BEGIN %}", "{%- generation %}").replace("{%- END %}", "{%- endgeneration %}").replace("BEGIN", BEGIN).replace("END", END)

say = lambda role, content: {"role": role, "content": content}
conversations = {
    "one": [say("user", "Hello there!"), say("assistant", "It is four.")],
    "system": [say("system", "you are a helper"), say("user", "who are you?"), say("assistant", "i am a helper")],
    "turns": [say("user", "What is two and two?"), say("assistant", "four"), say("user", "and Paris?"), say("assistant", "the capital of France"), say("user", "no"), say("assistant", "yes")],
    "same": [say("user", "the cat"), say("assistant", "the cat"), say("user", "the cat"), say("assistant", "the cat")],
    "letters": [say("user", "ça va? 你好"), say("assistant", "Très bien, 谢谢 👍🏽!")],
    "lines": [say("user", "write\n\ncode"), say("assistant", "def add(a, b):\n    return a + b")],
    "goes on": [say("user", "yes"), say("assistant", "no"), say("user", "maybe?")],
}

if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    tokenizers = {"bytes": byte_level(), "pieces": sentence_piece()}
    for name, tokenizer in tokenizers.items():
        tokenizer.save_pretrained(OUT / name)
        for extra in OUT.joinpath(name).iterdir():
            if extra.name not in ("tokenizer.json", "tokenizer_config.json"):
                extra.unlink()
    cases = []
    for name, (which, template) in templates.items():
        tokenizer = tokenizers[which]
        for said, messages in conversations.items():
            read = tokenizer.apply_chat_template(messages, chat_template=marked(template), return_dict=True, return_assistant_tokens_mask=True)
            last = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
            same = tokenizer.apply_chat_template(messages, chat_template=plain(template), return_dict=True)
            assert same["input_ids"] == read["input_ids"], (name, said)
            asked = tokenizer.apply_chat_template(messages[:last], chat_template=plain(template), add_generation_prompt=True, return_dict=True)
            cases.append(dict(template=name, conversation=said, ids=read["input_ids"], mask=read["assistant_masks"], prompt=asked["input_ids"]))
            assert sum(read["assistant_masks"]) > 0, (name, said)
    torch.manual_seed(0)
    losses = {}
    for model in ["llama-llama3", "gpt2", "qwen2-windows", "gemma3", "mixtral"]:
        loaded = tf.AutoModelForCausalLM.from_pretrained(GENERATION / model / "a", attn_implementation="eager").eval()
        vocabulary = loaded.config.vocab_size
        rows = [torch.randint(3, vocabulary, (n,)).tolist() for n in (14, 9, 11)]
        spans = [[[3, 5], [8, 11], [13, 14]], [[2, 6]], [[1, 2], [4, 9]]]
        total, count = 0.0, 0
        for ids, parts in zip(rows, spans):
            with torch.no_grad():
                logits = loaded(torch.tensor([ids])).logits[0]
            places = [t for a, b in parts for t in range(a, b)]
            total += torch.nn.functional.cross_entropy(logits[[t - 1 for t in places]], torch.tensor(ids)[places], reduction="sum").item()
            count += len(places)
        losses[model] = dict(rows=rows, spans=spans, loss=total / count)
    out = {"templates": {k: dict(tokenizer=w, plain=plain(t), marked=marked(t)) for k, (w, t) in templates.items()}, "conversations": conversations, "cases": cases, "losses": losses}
    (OUT / "chat.json").write_text(json.dumps(out, separators=(",", ":"), ensure_ascii=False) + "\n")
    print(len(cases), {k: round(v["loss"], 4) for k, v in losses.items()})
