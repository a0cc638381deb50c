import { describe, expect, test } from "vitest";
import { everyMethod } from "../../src/methods/index.js";
import { surveyPasses, readerFor, treatmentsOf } from "../../src/methods/pipeline.js";
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
      const merge = method.merge(reader, values, found[treatmentsOf(method, values).length]);
      const out = new Float32Array(original.rows * original.width);
      for (const part of reader.parts()) merge(part, out.subarray(part.start, part.start + part.base.length));
      return [original.name, out];
    }),
  );
}

function worst(
  out: Map<string, Float32Array>,
  expected: Record<string, number[]>,
): { at: string; error: number } {
  let found = { at: "", error: 0 };
  for (const [name, values] of out) {
    values.forEach((x, i) => {
      const error = Math.abs(x - expected[name]![i]!) / Math.max(1, Math.abs(expected[name]![i]!));
      if (!(error <= found.error)) found = { at: `${name}[${i}]: ${x} for ${expected[name]![i]}`, error };
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
      const rowByRow = run(method, resolved, inputs, 1);
      for (const [tensor, values_] of rowByRow)
        expect(
          worst(
            new Map([[tensor, values_]]),
            Object.fromEntries([...whole].map(([n, v]) => [n, Array.from(v)])),
          ).error,
          tensor,
        ).toBeLessThan(1e-6);
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
