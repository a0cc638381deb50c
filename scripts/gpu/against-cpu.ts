/** Parts that hold single steps of the card against the CPU's, which reference.json keeps. */
import { join } from "node:path";
import { kinds } from "./families.js";
import { here, lastJson, maxError, node, reference, why, type Context, type Found } from "./part.js";
import type { RandomStep } from "./random-step.js";

/** How far a step is from the CPU's: of the largest entry of its gradient, and of its loss. */
function stepErrors(found: RandomStep, expected: RandomStep | undefined): { gradient: number; loss: number } {
  if (!expected) return { gradient: NaN, loss: NaN };
  const scale = Math.max(...expected.gradient.map(Math.abs));
  return {
    gradient: maxError(found.gradient, expected.gradient) / scale,
    loss: maxError(found.losses, expected.losses),
  };
}

interface LimitsAnswer extends RandomStep {
  limit: number;
  pieces: number;
  seconds: number;
  dispatches: number;
  submissions: number;
}

/** An embedding larger than the 128 MiB that may be bound, beside the CPU's numbers. */
export async function limits(context: Context): Promise<Found> {
  const kind = context.emulated ? "wide-small" : "wide";
  const args = ["webgpu", kind, join(context.work, kind)];
  const ended = await node(context, "limits", join(here, "limits.js"), args, {
    TRAIN_MERGE_WEBGPU_LIMITS: "default",
  });
  const answer = lastJson<LimitsAnswer>(ended);
  if (!answer) return { ok: false, summary: why(ended, "limits") };
  const { gradient: error, loss: lossError } = stepErrors(answer, reference().limits[kind]);
  return {
    ok: error < 1e-4 && lossError < 1e-4,
    summary:
      `${kinds[kind]!.what} in ${answer.pieces} pieces under ${answer.limit / 2 ** 20} MiB: ` +
      `gradient within ${error.toExponential(1)} of the CPU's, loss within ` +
      `${lossError.toExponential(1)}; ${answer.dispatches} programs in ${answer.submissions} ` +
      `submissions, ${answer.seconds.toFixed(1)} s`,
    data: answer,
  };
}

/** Layers of sizes of today, on short and long texts, beside the CPU's numbers. */
export async function sizes(context: Context): Promise<Found> {
  const longest = context.emulated ? "120" : "600";
  const args = ["webgpu", join(context.work, "sizes"), longest];
  const ended = await node(context, "sizes", join(here, "sizes.js"), args);
  const answer = lastJson<Record<string, RandomStep>>(ended);
  if (!answer) return { ok: false, summary: why(ended, "sizes") };
  const errors = Object.entries(answer).map(([name, step]) => ({
    name,
    ...stepErrors(step, reference().sizes[name]),
  }));
  const worst = Math.max(...errors.map(({ gradient }) => gradient));
  return {
    ok: errors.every(({ gradient, loss }) => gradient < 1e-3 && loss < 1e-3),
    summary: `${errors.length} steps, gradients within ${worst.toExponential(1)} of the CPU's`,
    tables: [
      {
        title: "Steps of layers of sizes of today: differences from the CPU",
        head: ["family, tokens of its text", "gradient", "loss"],
        body: errors.map(({ name, gradient, loss }) => [
          name,
          gradient.toExponential(1),
          loss.toExponential(1),
        ]),
      },
    ],
    data: errors,
  };
}
