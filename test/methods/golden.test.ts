import { describe, expect, test } from "vitest";
import { everyMethod } from "../../src/methods/index.js";
import { mergeFor, surveyPasses, readerFor } from "../../src/methods/pipeline.js";
import type { Method, Part, TensorReader, ParameterValues } from "../../src/methods/types.js";
import { resolveValues } from "../../src/methods/values.js";
import { elements } from "../../src/tensor/dtype.js";
import { golden } from "../helpers.js";

interface Golden {
  labels: string[];
  tensors: Record<string, { shape: number[]; base: number[]; inputs: number[][] }>;
  fisher: Record<string, number[][]>;
  gram: Record<string, number[][]>;
  cases: {
    method: string;
    values: Record<string, unknown>;
    inputs: number[];
    out: Record<string, number[]>;
  }[];
}
const g = golden<Golden>("methods");

/** A tensor of the golden family, handed out in parts of so many rows. */
function readerIn(
  name: string,
  inputs: readonly number[],
  rowsAPart: number,
  needs: Method["needs"],
): TensorReader {
  const { shape, base, inputs: all } = g.tensors[name]!;
  const size = elements(shape);
  const width = shape.length > 1 ? shape.at(-1)! : size;
  const array = (values: readonly number[], from: number, count: number) =>
    Float32Array.from(values.slice(from, from + count));
  const fisher = needs === "fisher" ? g.fisher[name] : undefined;
  const gram = needs === "gram" ? g.gram[name] : undefined;
  return {
    name,
    width,
    rows: width ? size / width : 0,
    labels: inputs.map((i) => g.labels[i]!),
    *parts(): Generator<Part> {
      for (let start = 0; start < size; start += rowsAPart * width) {
        const count = Math.min(rowsAPart * width, size - start);
        yield {
          start,
          base: array(base, start, count),
          inputs: inputs.map((i) => array(all[i]!, start, count)),
          ...(fisher && { statistics: inputs.map((i) => array(fisher[i]!, start, count)) }),
        };
      }
    },
    ...(gram && { gram: (i: number) => Float32Array.from(gram[inputs[i]!]!) }),
  };
}

/** Runs a method as threads would: passes over two shares of the tensors, then each tensor. */
function run(
  method: Method,
  values: ParameterValues,
  inputs: readonly number[],
  rowsAPart: number,
): Map<string, Float32Array> {
  const names = Object.keys(g.tensors);
  const readers = names.map((name) => readerIn(name, inputs, rowsAPart, method.needs));
  const found: unknown[] = [];
  for (const { stage, pass } of surveyPasses(method, values)) {
    const shares = [readers.filter((_, i) => i % 2 === 0), readers.filter((_, i) => i % 2 === 1), []];
    const states = shares.map((share) => {
      const state = pass.start(inputs.length);
      for (const reader of share)
        pass.visit(state, readerFor(method, values, reader, { found, upTo: stage }), values, found[stage]);
      return state;
    });
    found[stage] = pass.join(states, values, found[stage]);
  }
  return new Map(
    readers.map((original) => {
      const reader = readerFor(method, values, original, { found });
      const merge = mergeFor(method, values, reader, { found });
      const out = new Float32Array(original.rows * original.width);
      for (const part of reader.parts())
        merge(part, [out.subarray(part.start, part.start + part.base.length)]);
      return [original.name, out];
    }),
  );
}

function worst(
  out: Map<string, Float32Array>,
  expected: Record<string, number[]>,
): { at: string; error: number } {
  let found = { at: "", error: 0 };
  for (const [name, right] of Object.entries(expected)) {
    const values = out.get(name)!;
    values.forEach((x, i) => {
      const error = Math.abs(x - right[i]!) / Math.max(1, Math.abs(right[i]!));
      if (!(error <= found.error)) found = { at: `${name}[${i}]: ${x} for ${right[i]}`, error };
    });
  }
  return found;
}

describe("every method equals its reference to 1e-6, whatever the parts", () => {
  test("there is a golden for every method", () => {
    expect(new Set(g.cases.map(({ method }) => method))).toEqual(
      new Set(everyMethod.map(({ name }) => name)),
    );
  });

  test.each(g.cases.map((c) => [`${c.method} ${JSON.stringify(c.values)}`, c] as const))(
    "%s",
    (_, { method: name, values, inputs, out }) => {
      const method = everyMethod.find((m) => m.name === name)!;
      const resolved = resolveValues(method, values, inputs.length);
      const whole = run(method, resolved, inputs, 1000);
      expect(worst(whole, out)).toEqual({ at: expect.any(String), error: expect.closeTo(0, 6) });
      expect(worst(whole, out).error).toBeLessThan(1e-6);
      const asLists = Object.fromEntries([...whole].map(([n, v]) => [n, Array.from(v)]));
      expect(worst(run(method, resolved, inputs, 1), asLists)).toEqual({
        at: expect.any(String),
        error: expect.closeTo(0, 6),
      });
    },
  );
});

describe("properties", () => {
  const close = (a: Map<string, Float32Array>, b: Map<string, Float32Array>) =>
    worst(a, Object.fromEntries([...b].map(([n, v]) => [n, Array.from(v)]))).error;
  const free = everyMethod.filter(
    ({ inputs, name, needs }) => (inputs?.[1] ?? Infinity) >= 3 && name !== "treated" && !needs,
  );

  // Of these tensors, the models of one cancel: there is no mean of them on the sphere.
  const always = free.filter(({ name }) => name !== "multislerp");

  test("multislerp of models that cancel is refused, of two it is their line", () => {
    const method = everyMethod.find(({ name }) => name === "multislerp")!;
    expect(() => run(method, resolveValues(method, {}, 3), [0, 1, 2], 2)).toThrow(
      /opposed.weight: the models cancel/,
    );
    const two = run(method, resolveValues(method, { weight: [1, 1] }, 2), [0, 1], 2);
    expect(Array.from(two.get("opposed.weight")!)).toEqual(
      g.tensors["opposed.weight"]!.base.map((x) => Math.fround(x) + 0),
    );
  });

  test.each(always.map((m) => [m.name, m] as const))(
    "%s: the order of the models does not matter",
    (_, method) => {
      const values = resolveValues(method, {}, 3);
      expect(close(run(method, values, [0, 1, 2], 2), run(method, values, [2, 0, 1], 2))).toBeLessThan(1e-6);
    },
  );

  test.each(["average", "linear", "ties", "karcher", "rankmean", "parameter-selection", "sce"])(
    "%s of one model three times is that model where nothing is dropped",
    (name) => {
      const method = everyMethod.find((m) => m.name === name)!;
      const values = resolveValues(method, name === "ties" ? { density: 1 } : {}, 3);
      const one = new Map(
        Object.entries(g.tensors).map(([n, { inputs }]) => [n, Float32Array.from(inputs[1]!)]),
      );
      expect(close(run(method, values, [1, 1, 1], 2), one)).toBeLessThan(1e-6);
    },
  );
});

test("rankmean ranks linear layers by their matrices: how far a bias moved changes nothing but the bias", () => {
  const method = everyMethod.find(({ name }) => name === "rankmean")!;
  const merged = (module: string) => run(method, resolveValues(method, { module }, 3), [0, 1, 2], 2);
  const name = "encoder.layer.0.dense.bias";
  const { base, inputs } = g.tensors[name]!;
  const matrices = (found: ReadonlyMap<string, Float32Array>) =>
    [...found].filter(([one]) => one.startsWith("encoder.layer") && one.endsWith("weight"));
  const before = { linear: matrices(merged("linear")), block: matrices(merged("block")) };
  const kept = inputs[0]!;
  inputs[0] = base.map((value, i) => value + 1000 * (1 + i));
  try {
    expect(matrices(merged("linear"))).toEqual(before.linear);
    expect(matrices(merged("block"))).not.toEqual(before.block);
  } finally {
    inputs[0] = kept;
  }
});

describe("the frontier's methods", () => {
  const found = (name: string) => everyMethod.find((method) => method.name === name)!;

  test("wudi is where its descent goes, and regmean with the task vectors' squares", () => {
    const solved = run(found("wudi"), resolveValues(found("wudi"), {}, 3), [0, 1, 2], 2);
    const values = resolveValues(found("wudi"), { by: "descent", steps: 4000, rate: 1e-3 }, 3);
    const gone = run(found("wudi"), values, [0, 1, 2], 2);
    for (const name of ["encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight"]) {
      const [a, b, sum] = [
        solved,
        gone,
        run(
          found("task-arithmetic"),
          resolveValues(found("task-arithmetic"), { lambda: 1 }, 3),
          [0, 1, 2],
          2,
        ),
      ].map((all) => Array.from(all.get(name)!));
      const apart = (x: number[], y: number[]) => Math.hypot(...x.map((value, i) => value - y[i]!));
      expect(apart(a!, b!)).toBeLessThan(0.05 * apart(a!, sum!));
    }
    const reader = readerIn("encoder.layer.0.dense.weight", [0, 1, 2], 1, undefined);
    const { rows, width } = reader;
    const deltas: number[][] = [[], [], []];
    for (const { base, inputs } of reader.parts())
      for (const [i, x] of inputs.entries())
        x.forEach((value, at) => deltas[i]!.push(Math.fround(value - base[at]!)));
    const gram = (i: number) => {
      const delta = deltas[i]!;
      const square = delta.reduce((sum, x) => sum + x * x, 0);
      return Float32Array.from({ length: width * width }, (_, place) => {
        const [p, q] = [Math.floor(place / width), place % width];
        let sum = 0;
        for (let r = 0; r < rows; r++) sum += delta[r * width + p]! * delta[r * width + q]!;
        return sum / square;
      });
    };
    const alone = resolveValues(found("regmean"), { alpha: 1 }, 3);
    const merge = found("regmean").merge({ ...reader, gram }, alone, undefined);
    const out = new Float32Array(rows * width);
    for (const part of reader.parts()) merge(part, out.subarray(part.start, part.start + part.base.length));
    out.forEach((x, i) => expect(x).toBeCloseTo(solved.get("encoder.layer.0.dense.weight")![i]!, 4));
  });

  test.each([
    ["knots", {}],
    ["rankmean", { module: "block" }],
    ["wudi", { by: "descent", steps: 30, rate: 1e-3 }],
    ["ties", { density: 0.3 }],
  ])("%s with --lines is what it changes without, times the block's factor", (name, given) => {
    const plain = run(found(name), resolveValues(found(name), given, 3), [0, 1, 2], 100);
    const values = resolveValues(found(name), { ...given, lines: 3 }, 3);
    const deeper = run(found(name), values, [0, 1, 2], 100);
    for (const [tensor, without] of plain) {
      const factor = 1 + Number(/layer\.(\d)/.exec(tensor)?.[1] ?? 0);
      const { base } = g.tensors[tensor]!;
      deeper.get(tensor)!.forEach((x, i) => {
        expect(x).toBeCloseTo(base[i]! + factor * (without[i]! - base[i]!), 5);
      });
    }
  });

  test("the parts that tasks have in tsv-m add up to it", () => {
    const whole = run(found("tsv-m"), resolveValues(found("tsv-m"), {}, 3), [0, 1, 2], 3);
    const parts = [0, 1, 2].map((which) => {
      const values = resolveValues(found("treated"), { which, by: "tsv-m" }, 3);
      return run(found("treated"), values, [0, 1, 2], 3);
    });
    for (const [name, right] of whole) {
      const base = g.tensors[name]!.base;
      right.forEach((x, i) => {
        const sum = parts.reduce((total, part) => total + part.get(name)![i]! - base[i]!, base[i]!);
        expect(sum).toBeCloseTo(x, 5);
      });
    }
  });

  test.each(["wudi", "knots"])(
    "%s: a matrix stored the other way round is merged as the same layer",
    (name) => {
      const reader = readerIn("encoder.layer.1.dense.weight", [0, 1, 2], 100, undefined);
      const { rows, width } = reader;
      const turn = (x: Float32Array) =>
        Float32Array.from(x, (_, at) => x[(at % rows) * width + Math.floor(at / rows)]!);
      const [part] = [...reader.parts()] as [Part];
      const turned = () => ({ start: 0, base: turn(part.base), inputs: part.inputs.map(turn) });
      const other = { ...reader, rows: width, width: rows, transposed: true, parts: () => [turned()] };
      const values = resolveValues(found(name), {}, 3);
      const [straight, across] = [reader, other].map((tensor) => {
        const deltas = readerFor(found(name), values, tensor, { found: [] });
        const survey = { thresholds: [0.1, 0.1, 0.1], size: rows * width, majority: 1 };
        const merge = found(name).merge(deltas, values, survey);
        const out = new Float32Array(rows * width);
        for (const one of deltas.parts()) merge(one, out);
        return out;
      });
      expect(Array.from(turn(straight!))).toEqual(Array.from(across!, (x) => expect.closeTo(x, 5)));
    },
  );

  test("lines: nothing outside of blocks, each block by its place in its own stack", () => {
    const values = resolveValues(found("task-arithmetic"), { lambda: 1, lines: 3 }, 1);
    const names = [
      "embed.weight",
      "enc.0.w",
      "enc.1.w",
      "enc.4.w",
      "dec.0.w",
      "dec.2.experts.7.w",
      "solo.0.w",
    ];
    const [{ pass }] = surveyPasses(found("task-arithmetic"), values) as [
      ReturnType<typeof surveyPasses>[number],
    ];
    const readers = names.map((name): TensorReader => ({
      name,
      rows: 1,
      width: 1,
      labels: ["one"],
      parts: () => [{ start: 0, base: Float32Array.of(1), inputs: [Float32Array.of(2)] }],
    }));
    const states = readers.map((reader) => {
      const state = pass.start(1);
      pass.visit(state, reader, values, undefined);
      return state;
    });
    const depths = pass.join(states, values, undefined);
    const factors = readers.map((reader) => {
      const treated = readerFor(found("task-arithmetic"), values, reader, { found: [depths] });
      const merge = mergeFor(found("task-arithmetic"), values, treated, { found: [depths] });
      const out = new Float32Array(1);
      for (const part of treated.parts()) merge(part, [out]);
      return out[0]! - 1;
    });
    expect(factors).toEqual([1, 1, 1.5, 3, 1, 3, 1]);
  });
});
