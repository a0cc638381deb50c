/** The rounds of step.ts: every side in turns, each round begun by another one. */
import { firstStep, machineSpeeds, stepParts, timed, type FirstStep, type MachineSpeeds } from "./answers.js";
import { startWorker, type Side, type Worker } from "./workers.js";

export interface Measured {
  readonly name: string;
  readonly peer?: string | undefined;
  readonly runsOn: string;
  /** Milliseconds of a step, one number a round; so are the others. */
  readonly steps: number[];
  readonly tokensPerSecond: number[];
  readonly parts: Record<string, number>[];
  readonly machine: MachineSpeeds[];
  peakBytes: number;
}

export interface RoundOptions {
  readonly rounds: number;
  readonly stepsARound: number;
  /** Every round starts its process anew, so that only one is in memory. */
  readonly fresh: boolean;
  note(line: string): void;
}

/** How far a side's first step may be from the first side's: of the largest number of its kind. */
const tolerance = { float32: 1e-3, tf32: 0.1 };

function largestDifference(values: readonly number[], expected: readonly number[]): number {
  const scale = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs((values[i] ?? NaN) - value))) / scale;
}

/**
 * How far the losses and the gradient of one side are from another's, relative to the largest. A tensor that one of
 * them leaves out is one that no expert changed: its gradient is 0.
 */
function distance(side: FirstStep, reference: FirstStep): number {
  const names = [...new Set([...Object.keys(side.gradient), ...Object.keys(reference.gradient)])];
  const zeros = reference.losses.map(() => 0);
  const flat = ({ gradient }: FirstStep) => names.flatMap((name) => gradient[name] ?? zeros);
  return Math.max(
    largestDifference(side.losses, reference.losses),
    largestDifference(flat(side), flat(reference)),
  );
}

/** A side with its process, while it has one. */
class Running {
  private worker: Worker | undefined;
  readonly measured: Measured;

  private constructor(
    readonly side: Side,
    worker: Worker,
    readonly first: FirstStep,
  ) {
    this.worker = worker;
    const { name, peer } = side;
    this.measured = {
      name,
      peer,
      runsOn: first.runsOn,
      steps: [],
      tokensPerSecond: [],
      parts: [],
      machine: [],
      peakBytes: 0,
    };
  }

  static async start(side: Side): Promise<Running> {
    const worker = startWorker(side);
    return new Running(side, worker, await worker.ask(firstStep));
  }

  async round(stepsARound: number, machine: boolean): Promise<void> {
    const worker = this.worker ?? startWorker(this.side);
    if (!this.worker) await worker.ask(firstStep);
    this.worker = worker;
    const { measured } = this;
    if (machine) measured.machine.push(await worker.ask(machineSpeeds, { what: "machine" }));
    const step = await worker.ask(timed, { what: "step", n: stepsARound });
    const evaluation = await worker.ask(timed, { what: "evaluate", n: 1 });
    const { parts } = await worker.ask(stepParts, { what: "parts", n: 1 });
    measured.steps.push(step.ms);
    measured.peakBytes = Math.max(measured.peakBytes, step.peakBytes);
    measured.tokensPerSecond.push(evaluation.tokensPerSecond);
    measured.parts.push(parts);
  }

  async stop(): Promise<void> {
    await this.worker?.stop();
    this.worker = undefined;
  }
}

/** Starts every side and compares its first step with the first side's; whoever fails or differs is left out. */
async function startSides(sides: readonly Side[], { fresh, note }: RoundOptions): Promise<Running[]> {
  const started: Running[] = [];
  for (const side of sides) {
    try {
      const running = await Running.start(side);
      if (fresh) await running.stop();
      const away = distance(running.first, (started[0] ?? running).first);
      const most = side.peer?.includes("tf32") ? tolerance.tf32 : tolerance.float32;
      const losses = running.first.losses.map((loss) => loss.toFixed(5)).join(" ");
      note(`${side.name}: first losses ${losses}; losses and gradient within ${away.toExponential(1)}`);
      if (away <= most) {
        started.push(running);
        continue;
      }
      await running.stop();
      note(`${side.name} is left out: it computes something else`);
    } catch (error) {
      note(String(error instanceof Error ? error.message : error));
    }
  }
  return started;
}

/** Measures all sides in turns. One that fails in between is left out. */
export async function measureInTurns(sides: readonly Side[], options: RoundOptions): Promise<Measured[]> {
  const { rounds, stepsARound, fresh, note } = options;
  let running = await startSides(sides, options);
  for (let round = 0; round < rounds; round++) {
    const first = round % Math.max(1, running.length);
    const firstPeer = running.find(({ side }) => side.peer !== undefined);
    for (const one of [...running.slice(first), ...running.slice(0, first)]) {
      try {
        // All ways of PyTorch have the same products and copies: one of them says what they give.
        await one.round(stepsARound, one.side.peer === undefined || one === firstPeer);
        if (fresh) await one.stop();
      } catch (error) {
        note(String(error instanceof Error ? error.message : error));
        running = running.filter((other) => other !== one);
      }
    }
    note(`round ${round + 1} of ${rounds}`);
  }
  for (const one of running) await one.stop();
  return running.map(({ measured }) => measured);
}
