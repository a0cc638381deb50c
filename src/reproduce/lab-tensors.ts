import { f32 } from "../at.js";
import { openFamily, openMember } from "../checkpoint/family.js";
import { headTensors } from "../models/layers.js";
import { locate } from "../inputs/locate.js";
import { readFamily } from "../inputs/prepare.js";
import { hashInputs } from "../inputs/data.js";
import { noteInputs, type LabContext } from "./lab-context.js";
import type { TensorDeltas } from "./types.js";

/** Every tensor that base and experts share, but for heads, one after the other. Held: one, and its task vectors. */
export async function* tensorsOf({ options, record }: LabContext): AsyncGenerator<TensorDeltas> {
  const locations = await locate(options);
  const { canonical, head } = await readFamily(locations.base);
  const family = await openFamily(
    await openMember("base", locations.base, canonical),
    locations.sources.map(({ label, folder }) => ({ task: label, folder })),
    canonical,
  );
  try {
    noteInputs(
      record,
      await hashInputs({ family, sources: locations.sources, data: options.data, tasks: [] }),
    );
    const heads = new Set(headTensors(head));
    for (const name of family.base.actual.keys()) {
      if (heads.has(name) || !family.experts.every(({ actual }) => actual.has(name))) continue;
      const { values: base } = await family.base.weights(name);
      const deltas: Float32Array[] = [];
      for (const expert of family.experts) {
        const { values } = await expert.weights(name);
        deltas.push(values.map((value, i) => value - f32(base, i)));
      }
      yield { name, base, deltas };
    }
  } finally {
    await family.close();
  }
}
