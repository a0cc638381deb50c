/** "encoder.layer.3.attention.self.query.weight" → what distinguishes it within a picture's width. */
export const shortLayer = (layer: string): string =>
  layer
    .replace(/^encoder\.layer\./, "")
    .replace("attention.", "att.")
    .replace("embeddings", "emb")
    .replace("LayerNorm", "norm")
    .replace("intermediate", "inter")
    .replace(/\.weight$/, "")
    .replace(/\.bias$/, ".b");
