import { expect, test } from "vitest";
import { gates, type GateName } from "../../src/merge/gates.js";

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
