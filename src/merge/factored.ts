import { isNoLinearLayer, type AdapterModules, type ShapedAdapterModule } from "../adapter-modules.js";
import { at, lookUp } from "../at.js";
import { whyFolded, type AdaptedCheckpoint } from "../checkpoint/adapted.js";
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
  readonly adapterModules: AdapterModules;
}

/** The adapters of a family, expert after expert; undefined where an expert is a whole model. */
type Adapters = readonly (AdaptedCheckpoint | undefined)[];
type Tensors = Map<string, HostTensor>;

/** What stands beside the weights, by canonical name: the base's, and each expert's. */
interface AddedTensors {
  readonly modules: Map<string, ShapedAdapterModule>;
  readonly base: Tensors;
  readonly experts: readonly Tensors[];
}

const noTensors = (adapters: Adapters): AddedTensors => ({
  modules: new Map(),
  base: new Map(),
  experts: adapters.map(() => new Map()),
});

/** Adds a tensor; without the experts' own, theirs is the base's. */
function addTensor(to: AddedTensors, name: string, base: HostTensor, own?: readonly HostTensor[]): void {
  to.base.set(name, base);
  for (const [i, tensors] of to.experts.entries()) tensors.set(name, own?.[i] ?? base);
}

/** What LoRA adapters have beside the weights; undefined where one is of a weight that nothing can stand beside. */
async function loraBeside(
  names: readonly string[],
  adapters: Adapters,
  moduleOf: (weight: string) => string,
): Promise<AddedTensors | undefined> {
  const added = noTensors(adapters);
  for (const { weight, rank, a, b, gains } of await stackLora(names, adapters)) {
    const module = moduleOf(weight);
    if (isNoLinearLayer(module)) return undefined;
    const [nameA, nameB, nameD] = [`${module}.lora_A`, `${module}.lora_B`, `${module}.lora_d`];
    added.modules.set(module, {
      lora: true,
      shapes: [
        [nameA, a.shape],
        [nameB, b.shape],
        [nameD, [rank]],
      ],
    });
    addTensor(added, nameA, a);
    addTensor(added, nameB, b);
    const none = new Float32Array(rank);
    addTensor(
      added,
      nameD,
      hostTensor(none),
      gains.map((gain) => hostTensor(gain ?? none)),
    );
  }
  return added;
}

/** A weight's (IA)³ vectors, expert after expert. */
interface Ia3Vectors {
  readonly along: "in" | "out";
  readonly size: number;
  /** Undefined where an expert has none. */
  readonly vectors: readonly (HostTensor | undefined)[];
}

/** Reads a weight's (IA)³ vectors; undefined where no adapter has one, "mixed" where they scale different sides. */
async function ia3Vectors(adapters: Adapters, weight: string): Promise<Ia3Vectors | "mixed" | undefined> {
  const found = adapters.map((one) => {
    const part = one?.adapted.get(weight);
    if (!one || part?.kind !== "ia3") return undefined;
    return { file: one.adapter.file, part };
  });
  const first = found.find((one) => one !== undefined);
  if (!first) return undefined;
  const { along, l } = first.part;
  if (found.some((one) => one && one.part.along !== along)) return "mixed";
  const vectors = await Promise.all(
    found.map(async (one) => one && hostTensor(toFloat32(await one.file.read(one.part.l)))),
  );
  return { along, size: elements(lookUp(first.file.entries, l).shape), vectors };
}

/** What (IA)³ adapters have beside the weights; undefined as of {@link loraBeside}, or where their sides differ. */
async function ia3Beside(
  base: Member,
  adapters: Adapters,
  moduleOf: (weight: string) => string,
): Promise<AddedTensors | undefined> {
  const added = noTensors(adapters);
  for (const weight of base.checkpoint.names) {
    const shape = base.checkpoint.entry(weight)?.shape;
    // A bias goes with its weight.
    if (!shape || shape.length < 2) continue;
    const read = await ia3Vectors(adapters, weight);
    if (!read) continue;
    const module = moduleOf(weight);
    if (isNoLinearLayer(module) || read === "mixed") return undefined;
    const { along, size, vectors } = read;
    const ones = hostTensor(new Float32Array(size).fill(1));
    const name = `${module}.ia3_l`;
    added.modules.set(module, { ia3: along, shapes: [[name, [size]]] });
    addTensor(
      added,
      name,
      ones,
      vectors.map((vector) => vector ?? ones),
    );
  }
  return added;
}

/**
 * The factored view of a family, where it has one: some experts are adapters of one kind; beside LoRA,
 * others may be whole models. Undefined where no expert is an adapter, or where what they hold does not
 * add up so: those are seen as models.
 */
export async function factoredFamily(
  family: Family,
  canonical: (name: string) => string,
): Promise<FactoredFamily | undefined> {
  const { base, close } = family;
  const adapters: Adapters = family.experts.map(adapterOf);
  if (adapters.some((one) => one && whyFolded(one) !== undefined)) return undefined;
  const kinds = new Set(adapters.map((one) => one?.adapter.kind ?? "model"));
  const moduleOf = (weight: string): string => canonical(weight).replace(/\.weight$/, "");
  let added: AddedTensors | undefined;
  if (kinds.has("lora") && !kinds.has("ia3"))
    added = await loraBeside(base.checkpoint.names, adapters, moduleOf);
  else if (kinds.has("ia3") && kinds.size === 1) added = await ia3Beside(base, adapters, moduleOf);
  if (!added) return undefined;
  const extended = (one: Member, tensors: ReadonlyMap<string, HostTensor>) => {
    const own = adapterOf(one)?.plain() ?? one.checkpoint;
    return member(one.label, overlaid(own, inMemory(own.folder, own.config, tensors)), canonical);
  };
  const { experts } = added;
  return {
    base: extended(base, added.base),
    experts: family.experts.map((one, i) => extended(one, at(experts, i))),
    close,
    adapterModules: added.modules,
  };
}
