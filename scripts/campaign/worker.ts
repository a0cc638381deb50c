/** Attempts of one target, one after the other; each is told before it begins and after it has ended. */
import { join } from "node:path";
import seedrandom from "seedrandom";
import { outcomeOf, type Outcome } from "./outcome.js";
import { targetsOf } from "./targets.js";

export interface Told {
  readonly number: number;
  readonly how: string;
  readonly mustRefuse: boolean;
  readonly outcome?: Outcome;
  readonly message?: string;
  readonly peakBytes?: number;
}

const [folder = "", index = "0", seed = "1", from = "0", to = "0"] = process.argv.slice(2);
const tell = (told: Told): Promise<void> => new Promise((resolve) => process.send?.(told, () => resolve()));

const target = (await targetsOf())[Number(index)];
if (!target) throw new Error(`no target ${index}`);
const folders = { whole: join(folder, "whole"), work: join(folder, `work-${index}`) };
for (let number = Number(from); number < Number(to); number++) {
  // The first of all is whole: it must be taken.
  const random = number < 0 ? undefined : seedrandom(`${seed}/${target.name}/${number}`);
  const { how, mustRefuse, run } = await target.attempt(random, folders);
  await tell({ number, how, mustRefuse });
  const { outcome, message } = await outcomeOf(run);
  const peakBytes = 1024 * process.resourceUsage().maxRSS;
  await tell({ number, how, mustRefuse, outcome, message, peakBytes });
}
process.exit(0);
