import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { readJson, sha256 } from "../checkpoint/files.js";
import { openFamily, openMember, type Family } from "../checkpoint/family.js";
import { Stopped, UserError } from "../errors.js";
import { headTensors } from "../models/head.js";
import { equation6 } from "../plan/memory.js";
import { rowTokens } from "../models/types.js";
import type { InputHash } from "../report/card.js";
import type { ResultRow } from "../report/rows.js";
import { compareMethods, type Compared } from "../compare/compare.js";
import { modelFolder } from "../compare/candidates.js";
import { evaluateFolder } from "../run/evaluate.js";
import { openInputs, recipeOf } from "../inputs/open.js";
import { locate, shippedFamily } from "../inputs/locate.js";
import type { MergeHooks, MergeOptions } from "../config/options.js";
import { encoderFor, readFamily } from "../inputs/prepare.js";
import { hashInputs } from "../inputs/record.js";
import { encodeMixed } from "../tasks/encoders.js";
import { findSplits, readExamples } from "../tasks/files.js";
import { loadTasks, pickTasks } from "../tasks/registry.js";
import { ordersOf } from "./orders.js";
import type { Cost, Lab, FinetuneSettings, Look } from "./types.js";

export interface LabOptions {
  readonly options: MergeOptions & { readonly data: string };
  readonly heldOut: readonly string[];
  readonly seeds: readonly number[];
  readonly finetuning: FinetuneSettings;
  /** Settings that the user gave. */
  readonly given: Readonly<Record<string, unknown>>;
  /** Where runs live: experiments may share them, and do nothing again that another did. */
  readonly runs: string;
}

/**
 * A lab, what its numbers were made from, and the minutes that its merges and searches took: filled as
 * runs are done.
 */
interface Open {
  readonly lab: Lab;
  readonly inputs: Map<string, InputHash>;
  worked(): number;
}

/** The lab of a family; or of several, each with its runs in a folder of its own, as the first one's `families`. */
export async function openLabs(
  options: LabOptions,
  names: readonly string[] | undefined,
  hooks: MergeHooks,
): Promise<Open> {
  const inputs = new Map<string, InputHash>();
  const families: Lab[] = [];
  if (!names) return openLab(options, inputs, families, hooks);
  const called = names.map((family) => basename(family));
  if (new Set(called).size !== called.length)
    throw new UserError(
      `--families ${names.join(",")}: two of the folders are called alike, and rows go by ` +
        "their names; give them names of their own",
    );
  const open: Open[] = [];
  for (const family of names)
    open.push(
      await openLab(
        {
          ...options,
          options: { ...options.options, family, base: undefined, experts: undefined },
          runs: join(options.runs, basename(family)),
        },
        inputs,
        families,
        hooks,
      ),
    );
  return { ...open[0]!, worked: () => open.reduce((sum, { worked }) => sum + worked(), 0) };
}

/** @param families filled with the lab itself */
async function openLab(
  { options, heldOut, seeds, finetuning, given, runs }: LabOptions,
  inputs: Map<string, InputHash>,
  families: Lab[],
  hooks: MergeHooks,
): Promise<Open> {
  // Of merges that were done in an earlier run too.
  let seconds = 0;
  const noted = (all: readonly InputHash[]) =>
    all.forEach((one) => inputs.set(`${one.role}/${one.file}/${one.sha256}`, one));
  const registry = await loadTasks(options.data);
  const synthetic = pickTasks(registry, [...options.tasks, ...heldOut]).some((task) => task.synthetic);

  async function* look(): AsyncGenerator<Look> {
    const locations = await locate(options);
    const { canonical, head } = await readFamily(locations.base);
    const family: Family = await openFamily(
      await openMember("base", locations.base, canonical),
      locations.sources.map(({ label, folder }) => ({ task: label, folder })),
      canonical,
    );
    try {
      noted(await hashInputs(family, locations.sources, options.data, []));
      const heads = new Set(headTensors(head));
      for (const name of family.base.actual.keys()) {
        if (heads.has(name) || !family.experts.every(({ actual }) => actual.has(name))) continue;
        const base = await family.base.weights(name);
        const deltas: Float32Array[] = [];
        for (const expert of family.experts) {
          const { values } = await expert.weights(name);
          deltas.push(values.map((value, i) => value - base.values[i]!));
        }
        yield { name, base: base.values, deltas };
      }
    } finally {
      await family.close();
    }
  }

  /** Tokens of a task's training files; undefined where it has none that are read as texts. */
  async function trainTokens(base: string, model: Parameters<typeof encoderFor>[1]): Promise<Cost["train"]> {
    const encoder = await encoderFor(base, model, options);
    if (encoder.input === "image") return undefined;
    let [examples, tokens] = [0, 0];
    for (const task of pickTasks(registry, options.tasks)) {
      const { train } = await findSplits(options.data, task);
      for (const path of train?.files ?? []) {
        for (const { rows } of encodeMixed(await readExamples(path, task), encoder, task)) {
          examples++;
          tokens += rowTokens(...rows);
        }
      }
    }
    return examples ? { examples, tokens } : undefined;
  }

  const lab: Lab = {
    name: basename(options.family ?? (options.base === undefined ? shippedFamily : dirname(options.base))),
    families,
    tasks: options.tasks,
    heldOut,
    seeds,
    synthetic,
    valPerTask: options.valPerTask,
    look,
    async compare(
      part,
      candidates,
      { tasks = options.tasks, heldOut: outside = [], seeds: over = seeds, keep = false } = {},
    ) {
      const rows: ResultRow[] = [];
      const times = [];
      const values = new Map<number, Compared["values"]>();
      // By what is merged, so that experiments which share their runs share merges.
      const folderOf = (seed: number) =>
        join(
          runs,
          `${tasks.join("+")}${outside.length ? `-without-${outside.join("+")}` : ""}`,
          `seed${seed}`,
        );
      for (const seed of over) {
        hooks.note(`${part}, seed ${seed}`);
        const made = await compareMethods(
          {
            ...options,
            tasks,
            seed,
            methods: candidates,
            search: true,
            keep,
            heldOut: outside,
            given,
            out: folderOf(seed),
          },
          { ...hooks, note: () => {} },
        );
        if (!made.finished) throw new Stopped("stopped; the same command goes on");
        rows.push(...made.rows);
        times.push(...made.times);
        values.set(seed, made.values);
        seconds += made.times.reduce((sum, { total }) => sum + total, 0);
        noted(((await readJson(join(folderOf(seed), "results.json"))) as { inputs: InputHash[] }).inputs);
      }
      return {
        rows,
        times,
        values: (name, seed) => values.get(seed)![name]!,
        folder: (name, seed) => modelFolder({ out: folderOf(seed) }, name),
      };
    },
    async multitask() {
      const { base } = await locate(options);
      const folder = join(base, "..", "multitask");
      if (!existsSync(join(folder, "heads"))) return [];
      const files = (await readdir(folder, { recursive: true }))
        .filter((name) => name.endsWith(".safetensors"))
        .sort();
      for (const file of files)
        noted([{ role: "multitask", file, sha256: await sha256(join(folder, file)) }]);
      const rows: ResultRow[] = [];
      for (const seed of seeds) {
        const { rows: mine } = await evaluateFolder(
          { ...options, folder, base, seed, tasks: options.tasks },
          "multitask",
        );
        rows.push(...mine);
      }
      return rows;
    },
    async orders(task, merges) {
      const rows: ResultRow[] = [];
      for (const seed of seeds) {
        const found = await ordersOf(
          { options, finetuning, task, seed, merges, out: join(runs, `orders-${task}`, `seed${seed}`) },
          hooks,
        );
        rows.push(...found.rows);
        seconds += found.seconds;
        noted(found.inputs);
      }
      return rows;
    },
    async cost() {
      const opened = await openInputs(
        { ...options, baselines: false },
        await recipeOf(options),
        join(runs, "cost"),
        hooks,
      );
      try {
        noted(opened.hashes);
        const { model, vectors, plan, tasks, locations } = opened;
        const parameters = [...model.parameters.values()].reduce(
          (sum, shape) => sum + shape.reduce((a, b) => a * b, 1),
          0,
        );
        const [layers, experts] = [vectors.layers.length, vectors.experts.length];
        const coefficients = layers * experts;
        const examples = tasks.flatMap(({ validation }) => validation);
        return {
          parameters,
          coefficients,
          layers,
          experts,
          planned: plan.chosen.device,
          equation6: {
            flat: equation6(parameters, experts, coefficients),
            pairwise: equation6(parameters, 2, layers * 2),
            fineTuning: equation6(parameters, 0, parameters),
          },
          validation: {
            examples: examples.length,
            tokens: examples.reduce((sum, { rows }) => sum + rowTokens(...rows), 0),
          },
          train: await trainTokens(locations.base, model),
        };
      } finally {
        await opened.dispose();
      }
    },
  };
  families.push(lab);
  return { lab, inputs, worked: () => seconds / 60 };
}
