import { expect, test } from "vitest";
import { settingsOf } from "../../src/compare/candidates.js";
import type { MergeOptions } from "../../src/config/options.js";

const options = { gate: "tanh", lr: 0.03, init: "search", holdout: 0.25 } as MergeOptions;
const of = (settings: Record<string, unknown>, given: Record<string, unknown> = {}) =>
  settingsOf({ name: "it", settings }, { options: { ...options, ...given }, given });

test("what is said of a training, and is so anyway, makes no difference", () => {
  expect(of({ gate: "tanh", init: "search" })).toEqual(of({}));
  expect(of({ gate: "clamp" })).toEqual({ gate: "clamp" });
  // What the user gave is what it is compared with; what makes a candidate what it is stays.
  expect(of({ gate: "clamp" }, { gate: "clamp" })).toEqual({});
  expect(of({ gate: "tanh" }, { gate: "clamp" })).toEqual({ gate: "tanh" });
});

test("a method's own settings give way to what the user gave, and to the candidate's", () => {
  expect(of({ method: "adamerging" })).toMatchObject({
    method: "adamerging",
    gate: "clamp",
    lr: 0.001,
    holdout: 0,
  });
  expect(of({ method: "adamerging" }, { lr: 0.1 })).not.toHaveProperty("lr");
  expect(of({ method: "adamerging", gate: "tanh" })).not.toHaveProperty("gate");
});
