/** What the processes that step.ts measures say of themselves: worker.ts for our engines, torch_step.py for PyTorch. */
import { z } from "zod";

/** The first step, before anything is timed: what is compared between the sides. */
export const firstStep = z.object({
  losses: z.array(z.number()),
  /** ∂L/∂ of every raw coefficient: of a tensor, one number an expert. */
  gradient: z.record(z.string(), z.array(z.number())),
  runsOn: z.string(),
});
export type FirstStep = z.infer<typeof firstStep>;

export const timed = z.object({ ms: z.number(), tokensPerSecond: z.number(), peakBytes: z.number() });

/** Milliseconds of each part of a step. */
export const stepParts = z.object({ parts: z.record(z.string(), z.number()) });

/** What matrix products (GFLOP/s) and copies (GB/s, read and written) give. */
export const machineSpeeds = z.object({
  /** 1024 × 1024 times 1024 × 1024. */
  square: z.number(),
  /** The tokens of a pass through the model's first feed-forward matrix. */
  model: z.number(),
  /** Two halves joined to a tensor of 16 MiB, in memory that the engine takes for it. */
  joined: z.number(),
  /** The same of 64 MiB, which malloc takes anew from the system each time. */
  joinedLarge: z.number(),
  /** 64 MiB into memory that is there: of Node with one thread, of PyTorch with all. */
  copied: z.number(),
});
export type MachineSpeeds = z.infer<typeof machineSpeeds>;
