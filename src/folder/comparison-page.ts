/** The page of a comparison: every method, what it saw, its search and the time that it took. */
import { z } from "zod";
import { tableCaption } from "../report/caption.js";
import { comparisonTable } from "../report/comparison.js";
import { linesSpec } from "../report/lines.js";
import { methodScores } from "../report/methods-chart.js";
import type { Section } from "../report/page.js";
import { distinct } from "../report/rows.js";
import { beside, references } from "../report/story.js";
import { toHtml } from "../report/table.js";
import type { resultsFile } from "./files.js";
import { madeWith, sideBySide } from "./sections.js";

const point = z.object({
  values: z.record(z.string(), z.union([z.number(), z.string()])),
  accuracy: z.number(),
});
const searched = z.record(z.string(), z.array(point));
const timed = z.array(
  z.object({
    method: z.string(),
    total: z.number(),
    merge: z.number(),
    seen: z.enum(["nothing", "labels, to search", "inputs", "labels", "test inputs"]).optional(),
  }),
);

/** What each point of a search over one number scored on the validation examples. */
function searches(search: unknown): Section[] {
  const points = Object.entries(searched.safeParse(search).data ?? {}).flatMap(([series, tried]) =>
    tried.flatMap(({ values, accuracy }) => {
      const [x, ...more] = Object.values(values);
      return typeof x === "number" && more.length === 0 ? [{ series, x, y: 100 * accuracy }] : [];
    }),
  );
  if (points.length === 0) return [];
  const axes = {
    title: "",
    x: "value",
    y: "accuracy, %",
    spacing: "linear",
    zero: false,
    wide: true,
  } as const;
  return [
    {
      title: "The searches",
      note: "Accuracy on the validation examples, by the number that was searched (mostly λ).",
      half: true,
      figure: linesSpec({ ...axes, points }),
    },
  ];
}

/** What a page of a finished comparison says, and shows. */
export function comparisonPage(found: NonNullable<Awaited<ReturnType<typeof resultsFile.read>>>): {
  readonly lead: string;
  readonly sections: readonly Section[];
} {
  const { rows, synthetic, settings, inputs } = found;
  const { tasks = distinct(rows.map(({ task }) => task)), valPerTask = 0 } = settings;
  const merges = methodScores(rows, tasks).filter(({ method }) => !references.has(method));
  const [best, second] = merges.toSorted((a, b) => b.mean - a.mean);
  const next = best && second ? `; ${beside(best, second)}` : "";
  return {
    lead: best
      ? `${best.method} is the best of ${merges.length} methods with ${best.mean.toFixed(1)} % on average${next}.`
      : "",
    sections: [
      sideBySide(rows, tasks),
      ...searches(found["search"]),
      {
        title: "Results",
        note: tableCaption(rows, synthetic, valPerTask),
        html: toHtml(comparisonTable(rows, timed.safeParse(found["times"]).data ?? [])),
      },
      ...madeWith(settings, inputs),
    ],
  };
}
