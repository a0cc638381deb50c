/** A WordPiece tokenizer whose vocabulary is every word of the synthetic texts. */
export function wordTokenizer(texts: Iterable<string>): { json: object; size: number } {
  const specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
  const words = new Set<string>();
  for (const text of texts) for (const word of text.split(" ")) words.add(word);
  const tokens = [...specials, ...[...words].filter(Boolean).sort()];
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  const special = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const single = [special("[CLS]", 0), { Sequence: { id: "A", type_id: 0 } }, special("[SEP]", 0)];
  const named = (token: string) => ({ id: token, ids: [vocab[token]], tokens: [token] });
  return {
    size: tokens.length,
    json: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: specials.map((content, id) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: {
        type: "BertNormalizer",
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: null,
        lowercase: true,
      },
      pre_tokenizer: { type: "BertPreTokenizer" },
      post_processor: {
        type: "TemplateProcessing",
        single,
        pair: [...single, { Sequence: { id: "B", type_id: 1 } }, special("[SEP]", 1)],
        special_tokens: { "[CLS]": named("[CLS]"), "[SEP]": named("[SEP]") },
      },
      decoder: { type: "WordPiece", prefix: "##", cleanup: true },
      model: {
        type: "WordPiece",
        unk_token: "[UNK]",
        continuing_subword_prefix: "##",
        max_input_chars_per_word: 100,
        vocab,
      },
    },
  };
}
