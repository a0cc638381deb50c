import { adapterOf, member, type Family, type Member } from "../checkpoint/family.js";
import { hostTensor, inMemory, overlaid } from "../checkpoint/overlay.js";
import { stackLora } from "../checkpoint/stacked.js";
import { elements, toFloat32, type HostTensor } from "../tensor/dtype.js";

/**
 * A family of adapters as training sees it: what they add stands beside the weights, as tensors of its
 * own, and no product is ever made. With LoRA, a module has A and B of all adapters side by side, the
 * base's, which nobody changes, and a vector d in which an expert's task vector is its scale in its own
 * part: W + Σ c_i s_i B_i A_i is W + B diag(d₀ + Σ c_i τ_i) A. With (IA)³ the vector is l itself, ones
 * in the base.
 */
export interface FactoredFamily extends Family {
  /** By canonical module: what stands beside it, and the shapes. */
  readonly adapterModules: ReadonlyMap<
    string,
    {
      readonly lora?: boolean;
      readonly ia3?: "in" | "out";
      readonly shapes: readonly (readonly [name: string, shape: readonly number[]])[];
    }
  >;
}

/** Weights that models do not read as a linear layer of theirs: what is added to them must be in them. */
const outside = /(^|\.)(lm_head|shared|embed_tokens|wte|wpe|projection|patch_embedding)$/;

const moduleOf = (canonical: (name: string) => string, weight: string): string =>
  canonical(weight).replace(/\.weight$/, "");

/**
 * The factored view of a family, where it has one: some experts are adapters of one kind; beside LoRA,
 * others may be whole models. Undefined where no expert is an adapter, or where what they hold does not
 * add up so: those are seen as models.
 */
export async function factoredFamily(
  family: Family,
  canonical: (name: string) => string,
): Promise<FactoredFamily | undefined> {
  const adapters = family.experts.map(adapterOf);
  const kinds = new Set(adapters.map((one) => one?.adapter.kind ?? "model"));
  const lora = kinds.has("lora") && !kinds.has("ia3");
  if (!lora && !(kinds.has("ia3") && kinds.size === 1)) return undefined;
  const { base } = family;
  const adapterModules = new Map<
    string,
    FactoredFamily["adapterModules"] extends ReadonlyMap<string, infer V> ? V : never
  >();
  const baseTensors = new Map<string, HostTensor>();
  const own = adapters.map(() => new Map<string, HostTensor>());
  if (lora) {
    for (const { weight, rank, a, b, gains } of await stackLora(base.checkpoint.names, adapters)) {
      const module = moduleOf(canonical, weight);
      if (outside.test(module)) return undefined;
      const [nameA, nameB, nameD] = [`${module}.lora_A`, `${module}.lora_B`, `${module}.lora_d`];
      adapterModules.set(module, {
        lora: true,
        shapes: [
          [nameA, a.shape],
          [nameB, b.shape],
          [nameD, [rank]],
        ],
      });
      for (const [i, tensors] of [baseTensors, ...own].entries()) {
        tensors.set(nameA, a);
        tensors.set(nameB, b);
        tensors.set(nameD, hostTensor(gains[i - 1] ?? new Float32Array(rank)));
      }
    }
  } else {
    for (const weight of base.checkpoint.names) {
      const parts = adapters.map((one) => one!.adapted.get(weight));
      const first = parts.find((part) => part?.kind === "ia3");
      // A bias goes with its weight.
      if (first?.kind !== "ia3" || base.checkpoint.entry(weight)!.shape.length < 2) continue;
      const module = moduleOf(canonical, weight);
      if (outside.test(module) || parts.some((part) => part?.kind === "ia3" && part.along !== first.along))
        return undefined;
      const name = `${module}.ia3_l`;
      const file = adapters[parts.indexOf(first)]!.adapter.file;
      const size = elements(file.entries.get(first.l)!.shape);
      const ones = new Float32Array(size).fill(1);
      adapterModules.set(module, { ia3: first.along, shapes: [[name, [size]]] });
      baseTensors.set(name, hostTensor(ones));
      for (const [i, part] of parts.entries())
        own[i]!.set(
          name,
          hostTensor(part?.kind === "ia3" ? toFloat32(await adapters[i]!.adapter.file.read(part.l)) : ones),
        );
    }
  }
  const extended = (one: Member, tensors: ReadonlyMap<string, HostTensor>) => {
    const own = adapterOf(one)?.plain() ?? one.checkpoint;
    return member(one.label, overlaid(own, inMemory(own.folder, own.config, tensors)), canonical);
  };
  return {
    base: extended(base, baseTensors),
    experts: family.experts.map((one, i) => extended(one, own[i]!)),
    close: family.close,
    adapterModules,
  };
}
