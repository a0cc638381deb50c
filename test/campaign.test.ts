/** A little of scripts/campaign: damaged inputs of every kind are refused in a line, or taken where they may be. */
import { join } from "node:path";
import seedrandom from "seedrandom";
import { expect, test } from "vitest";
import { outcomeOf } from "../scripts/campaign/outcome.js";
import { makeWhole } from "../scripts/campaign/setup.js";
import { familiesTried, targetsOf } from "../scripts/campaign/targets.js";
import { temporaryFolder } from "./helpers.js";

const scratch = await temporaryFolder();
const whole = join(scratch, "whole");
await makeWhole(whole, familiesTried);
const inputs = 30;

test.each((await targetsOf()).map((target) => [target.name, target] as const))("%s", async (name, target) => {
  const folders = { whole, work: join(scratch, name.replaceAll(/\W+/g, "-")) };
  const { run } = await target.attempt(undefined, folders);
  expect(await outcomeOf(run)).toEqual({ outcome: "taken", message: "" });
  let refused = 0;
  for (let number = 0; number < inputs; number++) {
    const attempt = await target.attempt(seedrandom(`test/${name}/${number}`), folders);
    const { outcome, message } = await outcomeOf(attempt.run);
    const told = `${number}: ${attempt.how}: ${message}`;
    expect(outcome, told).toMatch(attempt.mustRefuse ? /^refused$/ : /^(refused|taken)$/);
    expect(message.length, told).toBeLessThanOrEqual(500);
    refused += Number(outcome === "refused");
  }
  // A card that cannot be read is a card that says nothing.
  if (name !== "cards of models") expect(refused).toBeGreaterThan(inputs / 5);
});
