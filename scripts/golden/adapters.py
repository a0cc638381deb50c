"""Golden values of PEFT adapters: small random models with two LoRA or (IA)³ adapters each, as PEFT saves them.

    .venv/bin/python scripts/golden/adapters.py

A case is a folder test/golden/adapters/NAME: base, adapters a and b, and golden.json. The reference merges the weights that
PEFT's own merge_and_unload makes: logits of each adapter (by PEFT, unmerged), of a merge of both, loss, and the gradient
with respect to every coefficient.
"""
import copy
import json

import peft
import torch
from torch.func import functional_call

from models import ROOT, causal, coefficient, gemma3, gpt2, ids, make_base, mpnet, padded, roberta, rope, small, t5, tf, write

OUT = ROOT / "test" / "golden" / "adapters"


def case(name, make, configs, rows, forward, choices=None, is_head=lambda n: False, seed=0):
    generator = torch.Generator().manual_seed(seed + 29)
    folder, base, stored = make_base(OUT / name, make, generator, seed)
    start = {k: p.detach().clone() for k, p in base.named_parameters()}
    own, individual = [], []
    for which, config in zip("ab", configs):
        adapted = peft.get_peft_model(copy.deepcopy(base), config).eval()
        with torch.no_grad():
            for key, p in adapted.named_parameters():
                if "lora_" in key:
                    p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
                elif "ia3_l" in key:
                    p.copy_(1 + 0.4 * torch.randn(p.shape, generator=generator))
                elif "modules_to_save" in key:
                    p.copy_(torch.randn(p.shape, generator=generator) * 0.3)
        adapted.save_pretrained(folder / which)
        # PEFT keeps sets, whose order is another in every run.
        path = folder / which / "adapter_config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps({k: sorted(v) if k in ("target_modules", "feedforward_modules") and isinstance(v, list) else v for k, v in settings.items()}, indent=2, sort_keys=True) + "\n")
        with torch.no_grad():
            individual.append(forward(lambda *a, **kw: adapted(*a, **kw)))
        merged = adapted.merge_and_unload()
        own.append({k: p.detach() for k, p in merged.named_parameters()})
        (folder / which / "README.md").unlink(missing_ok=True)
    layers = [k for k in start if not is_head(k) and any(not torch.equal(o[k], start[k]) for o in own)]
    # (IA)³ scales a bias with its weight: one row for both.
    row = {k: stored[k][0].rsplit(".", 1)[0] if name.startswith("ia3") else stored[k][0] for k in layers}
    rows_of = list(dict.fromkeys(row.values()))
    raw = torch.tensor([[coefficient(r, c) for c in range(2)] for r in range(len(rows_of))], requires_grad=True)
    gated = torch.tanh(raw)
    merged = {k: (start[k] + sum(gated[rows_of.index(row[k]), c] * (own[c][k] - start[k]) for c in range(2)) if k in layers else own[0][k] if is_head(k) else start[k]) for k in start}
    logits = forward(lambda *a, **kw: functional_call(base, merged, a, kw, tie_weights=True))
    labels = [i % logits.shape[1] for i in range(logits.shape[0])]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    gradient = torch.autograd.grad(loss, raw)[0]
    write(folder, {
        "rows": rows, "choices": choices, "labels": labels, "layers": rows_of, "logits": logits.tolist(), "individual": [i.tolist() for i in individual],
        "loss": loss.item(), "gradient": gradient.tolist(),
    })


def texts(seed):
    generator = torch.Generator().manual_seed(seed)
    prompts = [p for p in ids(generator, 4, 12, 3) for _ in range(2)]
    return prompts, ids(generator, 1, 5, 6)


def scored(name, make, configs, seed=0):
    prompts, targets = texts(seed)
    input_ids, mask = padded([p + t for p, t in zip(prompts, targets)])

    def forward(call):
        log_p = call(input_ids=input_ids, attention_mask=mask).logits.log_softmax(-1)
        return torch.stack([log_p[r, len(p) - 1: len(p) + len(t) - 1].gather(1, torch.tensor(t)[:, None]).sum() for r, (p, t) in enumerate(zip(prompts, targets))]).view(3, 2)

    case(name, make, configs, [{"ids": p, "targets": t} for p, t in zip(prompts, targets)], forward, 2, seed=seed)


def answered(name, make, configs, seed=0):
    prompts, targets = texts(seed)
    input_ids, mask = padded(prompts)
    labels, _ = padded(targets)

    def forward(call):
        log_p = call(input_ids=input_ids, attention_mask=mask, labels=labels).logits.log_softmax(-1)
        return torch.stack([log_p[r, : len(t)].gather(1, torch.tensor(t)[:, None]).sum() for r, t in enumerate(targets)]).view(3, 2)

    case(name, make, configs, [{"ids": p, "targets": t} for p, t in zip(prompts, targets)], forward, 2, seed=seed)


def classified(name, make, configs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rows = ids(generator, 4, 12, 6)
    input_ids, mask = padded(rows, 1)
    case(name, make, configs, [{"ids": t} for t in rows], lambda call: call(input_ids=input_ids, attention_mask=mask).logits, is_head=lambda n: n.startswith("classifier."), seed=seed)


lora = lambda **rest: peft.LoraConfig(**{"r": 3, "lora_alpha": 6, **rest})

if __name__ == "__main__":
    classified("lora-mpnet", lambda: tf.MPNetForSequenceClassification(tf.MPNetConfig(num_labels=3, **mpnet)), [
        lora(task_type="SEQ_CLS", target_modules=["q", "v", "intermediate.dense"]), lora(r=2, task_type="SEQ_CLS", target_modules=["k", "o"])], seed=8)
    classified("lora-roberta", lambda: tf.RobertaForSequenceClassification(tf.RobertaConfig(num_labels=3, **roberta)), [
        lora(task_type="SEQ_CLS", target_modules=["query", "value"]), lora(r=2, task_type="SEQ_CLS", target_modules=["query", "key", "output.dense"], use_rslora=True)])
    scored("lora-llama", lambda: tf.LlamaForCausalLM(tf.LlamaConfig(num_key_value_heads=2, rope_parameters=rope("default"), **causal, **small)), [
        lora(target_modules=["q_proj", "v_proj", "down_proj"], rank_pattern={"down_proj": 5}, alpha_pattern={"layers.1.mlp.down_proj": 2}), lora(r=4, target_modules="all-linear")], seed=1)
    scored("lora-qwen3", lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(num_key_value_heads=2, head_dim=6, rope_parameters=rope("default"), **causal, **small)), [
        lora(target_modules="all-linear"), lora(r=2, target_modules=["q_proj", "k_proj"])], seed=9)
    scored("lora-gemma3", lambda: tf.Gemma3ForCausalLM(gemma3()), [lora(target_modules="all-linear"), lora(r=2, target_modules=["o_proj", "gate_proj"])], seed=10)
    scored("lora-gpt2", lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2)), [
        lora(target_modules=["c_attn"], fan_in_fan_out=True), lora(r=2, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)], seed=2)
    answered("lora-t5", lambda: tf.T5ForConditionalGeneration(tf.T5Config(**t5)), [lora(target_modules=["q", "v"]), lora(r=1, target_modules=["q", "wo"])], seed=3)
    ia3 = lambda **rest: peft.IA3Config(task_type="SEQ_2_SEQ_LM", target_modules=["k", "v", "wo"], feedforward_modules=["wo"], **rest)
    answered("ia3-t5", lambda: tf.T5ForConditionalGeneration(tf.T5Config(feed_forward_proj="gated-gelu", **{k: v for k, v in t5.items()})), [ia3(), ia3()], seed=4)
    scored("ia3-gpt2", lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2)), [
        peft.IA3Config(task_type="CAUSAL_LM", target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True) for _ in range(2)], seed=5)
