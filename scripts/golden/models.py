"""Golden values of every model family: small random models of transformers and PEFT, with every option that we read.

    .venv/bin/pip install -r scripts/golden/requirements.txt
    .venv/bin/python scripts/golden/models.py [--only NAME,…]

A case is a folder test/golden/models/NAME: base and two experts as transformers saves them, and golden.json with a batch,
the logits of each expert and of a merge of both (coefficients through tanh), the loss and its gradient with respect to
every coefficient.
"""
import argparse
import json
import os
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers as tf
from safetensors import safe_open
from torch.func import functional_call

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "test" / "golden" / "models"
tf.logging.set_verbosity_error()
small = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4)
VOCABULARY = 40


def coefficient(row, column):
    """A fixed table of raw coefficients that the tests can make again."""
    return 0.1 + 0.05 * ((row * 7 + column * 3) % 11)


def ids(generator, low, high, count):
    return [torch.randint(5, VOCABULARY, (int(torch.randint(low, high, (1,), generator=generator)),), generator=generator).tolist() for _ in range(count)]


def scramble(model, generator, scale):
    """Numbers large enough that no part of the model hides behind another, norms near 1."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator) * scale
            p.copy_(p + noise if scale < 0.2 else (1 + 0.1 * noise if p.ndim == 1 and "norm" in name.lower() and name.endswith("weight") else noise))


def names_in_file(model, folder):
    """Name in memory → names in the file, found by equal numbers: transformers renames some when it saves, and takes stacks of
    experts' matrices apart."""
    with safe_open(folder / "model.safetensors", "pt") as f:
        stored = {k: f.get_tensor(k) for k in f.keys()}

    def found(name, p):
        same = [k for k, v in stored.items() if v.shape == p.shape and torch.equal(v, p)]
        assert len(same) == 1, (name, same)
        return same[0]

    return {name: [name] if name in stored else [found(name, one) for one in parts(name, p.detach())] for name, p in model.named_parameters()}


def parts(name, p):
    """A parameter as a file has it: of a mixture, every expert's matrices by themselves."""
    if not ".experts." in name:
        return [p]
    return [half for one in p for half in (one.chunk(2) if name.endswith("gate_up_proj") else [one])]


def joined(name, tensors):
    """The way back."""
    if not ".experts." in name:
        return tensors[0]
    if name.endswith("gate_up_proj"):
        tensors = [torch.cat(pair) for pair in zip(tensors[::2], tensors[1::2])]
    return torch.stack(tensors)


def make_base(folder, make, generator, seed):
    """A scrambled model in FOLDER/base, and what its tensors are called there."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    base = make().eval()
    scramble(base, generator, 0.3)
    base.save_pretrained(folder / "base")
    return folder, base, names_in_file(base, folder / "base")


def case(name, make, rows, forward, is_head=lambda n: False, choices=None, labels=None, seed=0, extra=None):
    """
    make: () -> a fresh model; rows: what the tests lay out; forward(model, parameters) -> logits [examples, classes]
    """
    generator = torch.Generator().manual_seed(seed + 17)
    folder, base, stored = make_base(OUT / name, make, generator, seed)
    experts = []
    for which in ("a", "b"):
        expert = make().eval()
        expert.load_state_dict(base.state_dict())
        scramble(expert, generator, 0.06)
        expert.save_pretrained(folder / which)
        experts.append(expert)
    start = {k: p.detach() for k, p in base.named_parameters()}
    own = [{k: p.detach() for k, p in e.named_parameters()} for e in experts]
    # A row a tensor of the file.
    layers = [(k, i) for k in start if not is_head(k) for i in range(len(stored[k]))]
    raw = torch.tensor([[coefficient(r, c) for c in range(2)] for r in range(len(layers))], requires_grad=True)
    gated = torch.tanh(raw)
    row = {layer: r for r, layer in enumerate(layers)}
    mixed = lambda k, i, tensors: tensors[0] + sum(gated[row[k, i], c] * (tensors[1 + c] - tensors[0]) for c in range(2))
    merged = {k: (own[0][k] if is_head(k) else joined(k, [mixed(k, i, one) for i, one in enumerate(zip(*(parts(k, t[k]) for t in (start, *own))))])) for k in start}
    run = lambda parameters: forward(lambda *a, **kw: functional_call(base, parameters, a, kw, tie_weights=True))
    logits = run(merged)
    labels = labels if labels is not None else [i % logits.shape[1] for i in range(logits.shape[0])]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    gradient = torch.autograd.grad(loss, raw)[0]
    with torch.no_grad():
        individual = [run(o) for o in own]
    # What is not reached by the forward has no gradient; the test leaves such rows out of its sum alone.
    write(folder, {
        "rows": rows, "choices": choices, "labels": labels, "layers": [stored[k][i] for k, i in layers], "logits": logits.tolist(), "individual": [i.tolist() for i in individual],
        "loss": loss.item(), "gradient": gradient.tolist(), **(extra or {}),
    })


def write(folder, content):
    for junk in folder.glob("*/generation_config.json"):
        junk.unlink()
    (folder / "golden.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(folder.name, sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) // 1024, "KB")


def padded(rows, pad=0):
    length = max(len(r) for r in rows)
    return torch.tensor([r + [pad] * (length - len(r)) for r in rows]), torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows])


def classified(name, make, is_head, pad=0, seed=0, lengths=(4, 12), choice=False):
    """A head on features; with `choice`, two rows an example and a head that scores each."""
    generator = torch.Generator().manual_seed(seed)
    texts = ids(generator, *lengths, 6)
    input_ids, mask = padded(texts, pad)

    def forward(call):
        if choice:
            return call(input_ids=input_ids.view(3, 2, -1), attention_mask=mask.view(3, 2, -1)).logits
        return call(input_ids=input_ids, attention_mask=mask).logits

    case(name, make, [{"ids": t} for t in texts], forward, is_head, choices=2 if choice else None, seed=seed)


def scored(name, make, seed=0, lengths=(4, 12)):
    """A causal language model scores two answers to each of three texts by their summed log-probability."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [p for p in ids(generator, *lengths, 3) for _ in range(2)]
    targets = ids(generator, 1, 5, 6)
    full = [p + t for p, t in zip(prompts, targets)]
    input_ids, mask = padded(full)

    def forward(call):
        log_p = call(input_ids=input_ids, attention_mask=mask).logits.log_softmax(-1)
        sums = [log_p[r, len(p) - 1: len(p) + len(t) - 1].gather(1, torch.tensor(t)[:, None]).sum() for r, (p, t) in enumerate(zip(prompts, targets))]
        return torch.stack(sums).view(3, 2)

    case(name, make, [{"ids": p, "targets": t} for p, t in zip(prompts, targets)], forward, choices=2, seed=seed)


def answered(name, make, seed=0, lengths=(4, 30)):
    """T5 scores two answers to each of three texts."""
    generator = torch.Generator().manual_seed(seed)
    prompts = [p for p in ids(generator, *lengths, 3) for _ in range(2)]
    targets = ids(generator, 1, 24, 6)
    input_ids, mask = padded(prompts)
    labels, _ = padded(targets)

    def forward(call):
        log_p = call(input_ids=input_ids, attention_mask=mask, labels=labels).logits.log_softmax(-1)
        return torch.stack([log_p[r, : len(t)].gather(1, torch.tensor(t)[:, None]).sum() for r, t in enumerate(targets)]).view(3, 2)

    case(name, make, [{"ids": p, "targets": t} for p, t in zip(prompts, targets)], forward, choices=2, seed=seed)


def seen(name, make, is_head, size, seed=0, head=None, others=None):
    """Images, already normalised: [rows, channels, size, size]; `others`: what else the model has to be given."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(4, 3, size, size, generator=generator)

    def forward(call):
        out = call(pixel_values=pixels, **(others or {}))
        if head is None:
            return out.logits
        return torch.nn.functional.normalize(out.image_embeds, dim=-1) @ head.T

    extra = {"pixels": pixels.tolist(), **({} if head is None else {"head": head.tolist()})}
    case(name, make, [], forward, is_head, seed=seed, extra=extra)


def clip_text():
    """Features of CLIP's text tower."""
    folder = OUT / "clip-text"
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(5)
    model = tf.CLIPTextModelWithProjection(tf.CLIPTextConfig(vocab_size=VOCABULARY, max_position_embeddings=16, projection_dim=8, eos_token_id=3, bos_token_id=2, pad_token_id=1, **small)).eval()
    scramble(model, generator, 0.3)
    model.save_pretrained(folder / "base")
    texts = [[2, *t, 3] for t in ids(generator, 2, 9, 4)]
    with torch.no_grad():
        features = [torch.nn.functional.normalize(model(input_ids=torch.tensor([t])).text_embeds, dim=-1)[0].tolist() for t in texts]
    write(folder, {"rows": [{"ids": t} for t in texts], "features": features})


causal = dict(vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2)
rope = lambda kind, **rest: dict(rope_type=kind, rope_theta=100.0, **rest)
score_head = lambda n: n.startswith("score.")
classifier = lambda n: n.startswith("classifier.")
pooled_head_of_class = lambda n: n.startswith(("classifier.", "pooler."))
classifiers = lambda n: n.startswith(("classifier.", "pre_classifier."))
summary_head = lambda n: n.startswith(("classifier.", "sequence_summary."))
pooled_head = lambda n: n.startswith("classifier.") or ".pooler." in n
gpt2 = dict(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=4, n_positions=32, bos_token_id=1, eos_token_id=2, pad_token_id=0, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
t5 = dict(vocab_size=VOCABULARY, d_model=16, d_kv=6, d_ff=24, num_heads=4, num_layers=2, relative_attention_num_buckets=8, relative_attention_max_distance=20, dropout_rate=0, decoder_start_token_id=0)
deberta = dict(vocab_size=VOCABULARY, max_position_embeddings=48, relative_attention=True, pos_att_type=["p2c", "c2p"], hidden_dropout_prob=0, attention_probs_dropout_prob=0, pooler_dropout=0, **small)
distilbert = dict(vocab_size=VOCABULARY, max_position_embeddings=24, dim=16, hidden_dim=24, n_layers=2, n_heads=4, dropout=0, attention_dropout=0, seq_classif_dropout=0)
mpnet = dict(vocab_size=VOCABULARY, max_position_embeddings=48, pad_token_id=1, **small)
roberta = dict(vocab_size=VOCABULARY, max_position_embeddings=24, type_vocab_size=1, pad_token_id=1, **small)
# A whole CLIP: its text tower is as small as it can be, and no image depends on it.
clip_towers = dict(vision_config=dict(image_size=8, patch_size=4, **small), text_config=dict(vocab_size=8, max_position_embeddings=4, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, bos_token_id=0, eos_token_id=7), projection_dim=8)
clip_head = torch.randn(3, 8, generator=torch.Generator().manual_seed(9)) * 4



def gemma3(**rest):
    """Three layers, so that some see a window and one does not."""
    return tf.Gemma3TextConfig(**{**causal, **small, "num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 6, "query_pre_attn_scalar": 5, "sliding_window": 4, "max_position_embeddings": 64, "attn_implementation": "eager", **rest})


def falcon(**rest):
    return tf.FalconConfig(**{**causal, "pad_token_id": 0, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "attn_implementation": "eager", **rest})


def dinov2(**rest):
    return tf.Dinov2Config(patch_size=4, num_labels=3, mlp_ratio=2, layerscale_value=0.7, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, **rest)


def bart(**rest):
    return tf.BartConfig(**{**dict(vocab_size=VOCABULARY, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=48, dropout=0, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None), **rest})


def modernbert(**rest):
    """Three layers, so that some see the neighbourhood alone."""
    return tf.ModernBertConfig(**{**dict(vocab_size=VOCABULARY, max_position_embeddings=24, local_attention=6, pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2, attn_implementation="eager"), **small, "num_hidden_layers": 3, **rest})


def older_rotations(name, kinds, setting, full, near):
    """The config as the hub has it, from before its rotations were told by the kind of layer: `setting` tells the kinds, and two
    settings the rotations of layers that see everything and of those that do not."""
    for path in (OUT / name).glob("*/config.json"):
        config = json.loads(path.read_text())
        parts = config.pop("rope_parameters")
        assert config.pop("layer_types") == [f"{kind}_attention" for kind in kinds]
        config |= {**setting, full: parts["full_attention"]["rope_theta"], near: parts["sliding_attention"]["rope_theta"]}
        path.write_text(json.dumps(config, indent=2) + "\n")


def older_modernbert(name):
    older_rotations(name, ["full", "sliding", "full"], {"global_attn_every_n_layers": 2}, "global_rope_theta", "local_rope_theta")


def older_gemma(name):
    older_rotations(name, ["sliding", "sliding", "full"], {"sliding_window_pattern": 3}, "rope_theta", "rope_local_base_freq")


def as_published(name):
    """Phi's config as the hub has it: rotations told in three places."""
    for path in (OUT / name).glob("*/config.json"):
        config = json.loads(path.read_text())
        rope = config.pop("rope_parameters")
        config |= {"rope_theta": rope["rope_theta"], "partial_rotary_factor": rope["partial_rotary_factor"], "rope_scaling": {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}}
        path.write_text(json.dumps(config, indent=2) + "\n")


def untied_t5():
    model = tf.T5ForConditionalGeneration(tf.T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **t5))
    model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, 16))
    return model


def classic(name):
    """The config as transformers 4 wrote it, and as the hub has it."""
    for path in (OUT / name).glob("*/config.json"):
        config = json.loads(path.read_text())
        config["tie_word_embeddings"] = config.pop("scale_decoder_outputs")
        path.write_text(json.dumps(config, indent=2) + "\n")


cases = {
    "roberta": lambda n: classified(n, lambda: tf.RobertaForSequenceClassification(tf.RobertaConfig(num_labels=3, **roberta)), classifier, pad=1),
    "roberta-choice": lambda n: classified(n, lambda: tf.RobertaForMultipleChoice(tf.RobertaConfig(**roberta)), pooled_head, pad=1, choice=True, seed=1),
    # Texts long enough that the buckets of relative positions widen.
    "mpnet": lambda n: classified(n, lambda: tf.MPNetForSequenceClassification(tf.MPNetConfig(num_labels=3, **mpnet)), classifier, pad=1, seed=6, lengths=(3, 40)),
    "mpnet-choice": lambda n: classified(n, lambda: tf.MPNetForMultipleChoice(tf.MPNetConfig(**mpnet)), pooled_head, pad=1, choice=True, seed=7),
    "xlm-roberta": lambda n: classified(n, lambda: tf.XLMRobertaForSequenceClassification(tf.XLMRobertaConfig(num_labels=3, **roberta)), classifier, pad=1, seed=2),
    "camembert": lambda n: classified(n, lambda: tf.CamembertForSequenceClassification(tf.CamembertConfig(num_labels=3, **roberta)), classifier, pad=1, seed=3),
    "bert-relu": lambda n: classified(n, lambda: tf.BertForSequenceClassification(tf.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=24, num_labels=3, hidden_act="relu", **small)), classifier),
    "electra": lambda n: classified(n, lambda: tf.ElectraForSequenceClassification(tf.ElectraConfig(vocab_size=VOCABULARY, embedding_size=10, max_position_embeddings=24, num_labels=3, **small)), classifier, seed=21),
    "electra-choice": lambda n: classified(n, lambda: tf.ElectraForMultipleChoice(tf.ElectraConfig(vocab_size=VOCABULARY, embedding_size=16, max_position_embeddings=24, **small)), summary_head, choice=True, seed=22),
    # Two layers have one group's weights, the third has another's; a group is two layers.
    "albert": lambda n: classified(n, lambda: tf.AlbertForSequenceClassification(tf.AlbertConfig(vocab_size=VOCABULARY, embedding_size=10, max_position_embeddings=24, num_labels=3, num_hidden_groups=2, inner_group_num=2, classifier_dropout_prob=0, **{**small, "num_hidden_layers": 3})), classifier, seed=32),
    "albert-choice": lambda n: classified(n, lambda: tf.AlbertForMultipleChoice(tf.AlbertConfig(vocab_size=VOCABULARY, embedding_size=16, max_position_embeddings=24, hidden_act="gelu", classifier_dropout_prob=0, **small)), classifier, choice=True, seed=33),
    "distilbert": lambda n: classified(n, lambda: tf.DistilBertForSequenceClassification(tf.DistilBertConfig(num_labels=3, **distilbert)), classifiers, seed=23),
    "distilbert-choice": lambda n: classified(n, lambda: tf.DistilBertForMultipleChoice(tf.DistilBertConfig(**distilbert)), classifiers, choice=True, seed=24),
    "modernbert": lambda n: classified(n, lambda: tf.ModernBertForSequenceClassification(modernbert(num_labels=3, classifier_pooling="mean")), classifier, seed=25, lengths=(3, 14)),
    "modernbert-choice": lambda n: (classified(n, lambda: tf.ModernBertForMultipleChoice(modernbert(global_attn_every_n_layers=2, global_rope_theta=500.0, local_rope_theta=50.0)), classifier, choice=True, seed=26, lengths=(3, 14)), older_modernbert(n)),
    # As the third generation has it, and with matrices of its own for positions, types, and a number for each distance.
    "deberta": lambda n: classified(n, lambda: tf.DebertaV2ForSequenceClassification(tf.DebertaV2Config(num_labels=3, position_buckets=6, share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False, type_vocab_size=0, **deberta)), pooled_head_of_class, seed=27, lengths=(3, 20)),
    "deberta-choice": lambda n: classified(n, lambda: tf.DebertaV2ForMultipleChoice(tf.DebertaV2Config(max_relative_positions=9, type_vocab_size=2, **deberta)), pooled_head_of_class, choice=True, seed=28, lengths=(3, 14)),
    "gpt2": lambda n: scored(n, lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2))),
    "gpt2-untied": lambda n: scored(n, lambda: tf.GPT2LMHeadModel(tf.GPT2Config(tie_word_embeddings=False, n_inner=20, activation_function="gelu", **gpt2)), seed=1),
    "gpt2-head": lambda n: classified(n, lambda: tf.GPT2ForSequenceClassification(tf.GPT2Config(num_labels=3, **gpt2)), score_head),
    "llama-linear": lambda n: scored(n, lambda: tf.LlamaForCausalLM(tf.LlamaConfig(num_key_value_heads=2, attention_bias=True, mlp_bias=True, rope_parameters=rope("linear", factor=2.0), **causal, **small))),
    "llama-llama3": lambda n: scored(n, lambda: tf.LlamaForCausalLM(tf.LlamaConfig(num_key_value_heads=1, tie_word_embeddings=True, max_position_embeddings=64, rope_parameters=rope("llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16), **causal, **small)), seed=1),
    "llama-head": lambda n: classified(n, lambda: tf.LlamaForSequenceClassification(tf.LlamaConfig(num_labels=3, pad_token_id=0, rope_parameters=rope("default"), **causal, **small)), score_head),
    "mistral": lambda n: scored(n, lambda: tf.MistralForCausalLM(tf.MistralConfig(num_key_value_heads=2, head_dim=6, sliding_window=5, rope_parameters=rope("dynamic", factor=2.0), max_position_embeddings=64, attn_implementation="eager", **causal, **small)), seed=2),
    "qwen2": lambda n: scored(n, lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(num_key_value_heads=2, tie_word_embeddings=True, max_position_embeddings=64, rope_parameters=rope("yarn", factor=4.0, original_max_position_embeddings=16), **causal, **small)), seed=3),
    "qwen2-windows": lambda n: scored(n, lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(num_key_value_heads=2, use_sliding_window=True, sliding_window=4, max_window_layers=1, max_position_embeddings=64, rope_parameters=rope("default"), attn_implementation="eager", **causal, **small)), seed=8),
    "qwen3": lambda n: scored(n, lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(num_key_value_heads=2, head_dim=6, tie_word_embeddings=True, max_position_embeddings=64, rope_parameters=rope("default"), **causal, **small)), seed=9),
    "qwen3-windows": lambda n: scored(n, lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(num_key_value_heads=1, head_dim=8, attention_bias=True, use_sliding_window=True, sliding_window=3, layer_types=["sliding_attention", "full_attention"], max_position_embeddings=64, rope_parameters=rope("default"), attn_implementation="eager", **causal, **small)), seed=10),
    "qwen3-head": lambda n: classified(n, lambda: tf.Qwen3ForSequenceClassification(tf.Qwen3Config(num_labels=3, num_key_value_heads=2, head_dim=4, pad_token_id=0, rope_parameters=rope("default"), **causal, **small)), score_head, seed=11),
    "qwen3-moe": lambda n: scored(n, lambda: tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(num_key_value_heads=2, head_dim=6, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=12, norm_topk_prob=True, mlp_only_layers=[0], max_position_embeddings=64, rope_parameters=rope("default"), **causal, **{**small, "num_hidden_layers": 3})), seed=15),
    "qwen3-moe-plain": lambda n: scored(n, lambda: tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(num_key_value_heads=2, head_dim=6, num_experts=4, num_experts_per_tok=3, moe_intermediate_size=12, norm_topk_prob=False, decoder_sparse_step=2, max_position_embeddings=64, rope_parameters=rope("default"), **causal, **small)), seed=16),
    "mixtral": lambda n: scored(n, lambda: tf.MixtralForCausalLM(tf.MixtralConfig(num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64, rope_parameters=rope("default"), **causal, **small)), seed=17),
    "gemma3": lambda n: scored(n, lambda: tf.Gemma3ForCausalLM(gemma3(layer_types=["sliding_attention", "sliding_attention", "full_attention"], rope_parameters={"sliding_attention": rope("default"), "full_attention": dict(rope_type="linear", rope_theta=1000.0, factor=2.0)})), seed=12),
    "gemma3-older": lambda n: (scored(n, lambda: tf.Gemma3ForCausalLM(gemma3(sliding_window_pattern=3, rope_theta=1000.0, rope_local_base_freq=100.0)), seed=13), older_gemma(n)),
    "gemma3-head": lambda n: classified(n, lambda: tf.Gemma3TextForSequenceClassification(gemma3(num_labels=3, pad_token_id=0)), score_head, seed=14),
    # Caps low enough that scores of random weights meet them.
    "gemma2": lambda n: scored(n, lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(num_key_value_heads=2, head_dim=6, query_pre_attn_scalar=5, sliding_window=4, attn_logit_softcapping=0.7, final_logit_softcapping=1.5, max_position_embeddings=64, rope_parameters=rope("default"), attn_implementation="eager", **causal, **{**small, "num_hidden_layers": 3})), seed=31),
    "olmo2": lambda n: scored(n, lambda: tf.Olmo2ForCausalLM(tf.Olmo2Config(num_key_value_heads=2, pad_token_id=0, max_position_embeddings=64, rope_parameters=rope("default"), **causal, **small)), seed=18),
    "olmo2-head": lambda n: classified(n, lambda: tf.Olmo2ForSequenceClassification(tf.Olmo2Config(num_labels=3, num_key_value_heads=2, pad_token_id=0, rope_parameters=rope("default"), **causal, **small)), score_head, seed=20),
    "phi3": lambda n: scored(n, lambda: tf.Phi3ForCausalLM(tf.Phi3Config(num_key_value_heads=2, pad_token_id=0, sliding_window=5, max_position_embeddings=64, original_max_position_embeddings=64, rope_parameters=rope("default"), attn_implementation="eager", **causal, **small)), seed=19),
    # As Phi-3.5's and Phi-4-mini's: factors for each pair of entries, a part of a head that does not turn.
    "phi3-long": lambda n: (scored(n, lambda: tf.Phi3ForCausalLM(tf.Phi3Config(num_key_value_heads=2, pad_token_id=0, tie_word_embeddings=True, max_position_embeddings=256, original_max_position_embeddings=64, partial_rotary_factor=0.5, rope_scaling=dict(type="longrope", short_factor=[1.1], long_factor=[4.0]), attn_implementation="eager", **{k: v for k, v in causal.items() if k != "tie_word_embeddings"}, **small)), seed=34), as_published(n)),
    "gpt-neox": lambda n: scored(n, lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(pad_token_id=0, max_position_embeddings=64, rotary_pct=0.5, **causal, **small)), seed=29),
    "gpt-neox-serial": lambda n: scored(n, lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(pad_token_id=0, max_position_embeddings=64, use_parallel_residual=False, rotary_pct=1.0, rotary_emb_base=100, hidden_act="gelu_new", **causal, **small)), seed=30),
    # 40B's form, 11B's, 7B's, and the first ones'.
    "falcon": lambda n: scored(n, lambda: tf.FalconForCausalLM(falcon(new_decoder_architecture=True, num_kv_heads=2)), seed=35),
    "falcon-11b": lambda n: scored(n, lambda: tf.FalconForCausalLM(falcon(new_decoder_architecture=True, num_kv_heads=1, num_ln_in_parallel_attn=1, ffn_hidden_size=20, tie_word_embeddings=False)), seed=36),
    "falcon-7b": lambda n: scored(n, lambda: tf.FalconForCausalLM(falcon()), seed=37),
    "falcon-serial": lambda n: scored(n, lambda: tf.FalconForCausalLM(falcon(multi_query=False, parallel_attn=False, bias=True)), seed=38),
    "opt": lambda n: scored(n, lambda: tf.OPTForCausalLM(tf.OPTConfig(vocab_size=VOCABULARY, hidden_size=16, word_embed_proj_dim=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32, dropout=0, pad_token_id=1, bos_token_id=2, eos_token_id=2)), seed=4),
    "t5": lambda n: answered(n, lambda: tf.T5ForConditionalGeneration(tf.T5Config(**t5))),
    "t5-untied": lambda n: (answered(n, untied_t5, seed=2), classic(n)),
    "t5-gated": lambda n: answered(n, lambda: tf.T5ForConditionalGeneration(tf.T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False, num_decoder_layers=3, **t5)), seed=1),
    "bart": lambda n: answered(n, lambda: tf.BartForConditionalGeneration(bart(scale_embedding=True, encoder_layers=3)), seed=3),
    "bart-relu": lambda n: answered(n, lambda: tf.BartForConditionalGeneration(bart(activation_function="relu", decoder_attention_heads=2, decoder_ffn_dim=20)), seed=4),
    "vit": lambda n: seen(n, lambda: tf.ViTForImageClassification(tf.ViTConfig(image_size=8, patch_size=4, num_labels=3, **small)), classifier, 8),
    # At the size that its positions are for, and at others.
    "dinov2": lambda n: seen(n, lambda: tf.Dinov2ForImageClassification(dinov2(image_size=8)), classifier, 8),
    "dinov2-smaller": lambda n: seen(n, lambda: tf.Dinov2ForImageClassification(dinov2(image_size=20)), classifier, 12, seed=1),
    "dinov2-larger": lambda n: seen(n, lambda: tf.Dinov2ForImageClassification(dinov2(image_size=8)), classifier, 12, seed=2),
    "siglip": lambda n: seen(n, lambda: tf.SiglipForImageClassification(tf.SiglipConfig(vision_config=dict(image_size=12, patch_size=4, **small), text_config=dict(vocab_size=8, max_position_embeddings=4, projection_size=16, bos_token_id=0, eos_token_id=7, pad_token_id=1, **small), num_labels=3)), classifier, 12, seed=3),
    "clip": lambda n: seen(n, lambda: tf.CLIPVisionModelWithProjection(tf.CLIPVisionConfig(image_size=8, patch_size=4, projection_dim=8, **small)), lambda k: False, 8, head=clip_head),
    "clip-whole": lambda n: seen(n, lambda: tf.CLIPModel(tf.CLIPConfig(**clip_towers)), lambda k: False, 8, seed=1, head=clip_head, others={"input_ids": torch.tensor([[0, 7]])}),
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only")
    chosen = parser.parse_args().only
    for key, make in cases.items():
        if not chosen or key in chosen.split(","):
            make(key)
    if not chosen or "clip-text" in chosen:
        clip_text()
