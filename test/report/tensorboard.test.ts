import { expect, test } from "vitest";
import { eventFile, type ScalarEvent } from "../../src/report/tensorboard.js";
import { golden } from "../helpers.js";

test("an event file is TensorBoard's own, byte for byte", () => {
  const { time, scalars, bytes } = golden<{ time: number; scalars: ScalarEvent[]; bytes: string }>("events");
  expect(eventFile(scalars, time).toString("base64")).toBe(bytes);
});
