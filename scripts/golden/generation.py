"""What language models say, and the loss of what they are to say, from transformers: greedy continuations of prompts by the
experts of scripts/golden/models.py, and the mean cross-entropy of a token over several targets.

    .venv/bin/python scripts/golden/generation.py

Writes test/golden/generation.json. Every prompt runs alone, so that nothing is padded, and from its beginning for every token, so
that nothing is remembered.
"""
import json
import os
import string
import re
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers as tf

ROOT = Path(__file__).resolve().parents[2]
tf.logging.set_verbosity_error()
MOST = 12


def normalise(text):
    """SQuAD's: lower case, without punctuation, articles and more than one space."""
    bare = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def case(name):
    folder = ROOT / "test" / "golden" / "models" / name / "a"
    config = tf.AutoConfig.from_pretrained(folder)
    model = (tf.AutoModelForSeq2SeqLM if config.is_encoder_decoder else tf.AutoModelForCausalLM).from_pretrained(folder, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(3)
    draw = lambda low, high: torch.randint(5, 40, (int(torch.randint(low, high, (1,), generator=generator)),), generator=generator).tolist()

    def continued(prompt):
        given = torch.tensor([prompt])
        out = model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=MOST, pad_token_id=0, use_cache=False)[0].tolist()
        return [t for t in (out[1:] if config.is_encoder_decoder else out[len(prompt):]) if t != config.eos_token_id]

    # Random models like to say one token for ever: of many prompts, those that make them say the most.
    tried = [(prompt, continued(prompt)) for prompt in (draw(2, 9) for _ in range(80))]
    best = sorted(tried, key=lambda one: -len(set(one[1])))[:4] + sorted(tried, key=lambda one: len(one[1]))[:1]
    prompts, said = [prompt for prompt, _ in best], [out for _, out in best]
    targets = [draw(1, 6) for _ in prompts]
    losses = []
    with torch.no_grad():
        for prompt, target in zip(prompts, targets):
            given = torch.tensor([prompt])
            labels = torch.tensor([target] if config.is_encoder_decoder else [[-100] * len(prompt) + target])
            read = given if config.is_encoder_decoder else torch.tensor([prompt + target])
            losses.append(model(input_ids=read, labels=labels).loss.item())
    lengths = [len(t) for t in targets]
    return {"prompts": prompts, "said": said, "targets": targets, "loss": sum(a * n for a, n in zip(losses, lengths)) / sum(lengths)}


if __name__ == "__main__":
    names = ["gpt2", "gpt2-untied", "llama-linear", "llama-llama3", "mistral", "qwen2", "qwen2-windows", "qwen3", "qwen3-windows", "qwen3-moe", "qwen3-moe-plain", "mixtral", "gemma2", "gemma3", "gemma3-older", "olmo2", "phi3", "phi3-long", "gpt-neox", "gpt-neox-serial", "falcon", "falcon-11b", "falcon-7b", "falcon-serial", "opt", "t5", "t5-gated", "t5-untied", "bart", "bart-relu"]
    texts = ["The Cat.", "a  dog,\tan ant", "Anna's theory", "U.S.A.", "  ", "the-end", "A, the!", "naïve Œuvre – 3.5%", "thean a nthe"]
    out = {"most": MOST, "cases": {name: case(name) for name in names}, "normalised": [[text, normalise(text)] for text in texts]}
    (ROOT / "test" / "golden" / "generation.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")
    for name, one in out["cases"].items():
        print(name, one["loss"], [len(s) for s in one["said"]], one["said"][0])
