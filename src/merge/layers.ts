/** One row of the coefficient matrix and the tensors that share it. */
export interface Layer {
  readonly id: string;
  readonly names: readonly string[];
}

export const granularities = ["tensor", "module", "block", "model"] as const;
export type Granularity = (typeof granularities)[number];

/** "encoder.layer.3.attention.self.query.weight" → "encoder.layer.3"; outside numbered blocks, the first part. */
export function blockOf(name: string): string {
  const parts = name.split(".");
  const numbered = parts.findIndex((part) => /^\d+$/.test(part));
  return parts.slice(0, Math.max(0, numbered) + 1).join(".");
}

/** What shares a row with a tensor: itself, its module (weight and bias), its block, or everything. */
function layerId(name: string, granularity: Granularity): string {
  const rows: Record<Granularity, string> = {
    // What adapters add to a weight shares its row: an expert changes the one or the other.
    tensor: name.replace(/\.lora_d$/, ".weight"),
    module: name.replace(/\.[^.]*$/, ""),
    block: blockOf(name),
    model: "model",
  };
  return rows[granularity];
}

/** Groups tensor names into layers, in the order in which they first appear. */
export function groupLayers(names: readonly string[], granularity: Granularity): Layer[] {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const id = layerId(name, granularity);
    const group = groups.get(id);
    if (group) group.push(name);
    else groups.set(id, [name]);
  }
  return [...groups].map(([id, members]) => ({ id, names: members }));
}
