import { expect, test } from "vitest";
import { gates, reachable, type GateName } from "../../src/merge/table.js";

test.each(Object.keys(gates) as GateName[])("%s: slope by finite differences, inverse", (name) => {
  const gate = gates[name];
  for (const raw of [-2, -0.3, 0.1, 0.5, 0.9, 1.7]) {
    const step = 1e-6;
    expect(gate.slope(raw)).toBeCloseTo((gate.apply(raw + step) - gate.apply(raw - step)) / (2 * step), 8);
  }
  for (const coefficient of [0.1, 0.3, 0.9])
    expect(gate.apply(gate.inverse(coefficient))).toBeCloseTo(coefficient, 12);
});

test("a coefficient that a gate cannot reach is refused", () => {
  expect(() => gates.tanh.inverse(1)).toThrow(/outside \(-1, 1\)/);
  expect(() => gates.clamp.inverse(-0.1)).toThrow(/outside \[0, 1\]/);
  expect(gates.clamp.inverse(1)).toBe(1);
});

test("out of a gate's reach, the nearest coefficient that it has, with a slope there", () => {
  expect([reachable("tanh", 1), reachable("tanh", -1.7), reachable("tanh", 0.4)]).toEqual([
    0.999, -0.999, 0.4,
  ]);
  expect([reachable("sigmoid", -0.2), reachable("sigmoid", 1)]).toEqual([0.001, 0.999]);
  expect([reachable("clamp", -0.2), reachable("clamp", 1.3), reachable("clamp", 1)]).toEqual([0, 1, 1]);
  expect(reachable("identity", -7)).toBe(-7);
  for (const name of Object.keys(gates) as GateName[]) {
    for (const coefficient of [-2, -0.5, 0, 0.5, 2]) {
      const raw = gates[name].inverse(reachable(name, coefficient));
      expect(Number.isFinite(raw)).toBe(true);
      expect(gates[name].slope(raw)).toBeGreaterThan(0);
    }
  }
});
