import { mean } from "../report/interval.js";
import { linesSpec } from "../report/lines.js";
import { readLog } from "../folder/files.js";
import { average, tableOf } from "./shared.js";
import type { Experiment, Produced } from "./types.js";

const names = ["adamerging", "adamerging-task-wise"];

export const adamerging: readonly Experiment[] = [
  {
    id: "adamerging/curve",
    what: "accuracy along AdaMerging's training, layer-wise and task-wise",
    minutes: [7, 40],
    models: 3,
    claims: [
      {
        text: "Layer-wise is above task-wise at the end, on the test examples",
        holds: ({ rows }, { tasks }) => average(rows, names[0]!, tasks)! > average(rows, names[1]!, tasks)!,
      },
      {
        text: "Layer-wise is above task-wise at the end, on the validation examples that they adapted to",
        holds: ({ numbers }) =>
          numbers!["validation at the end, adamerging"]! >
          numbers!["validation at the end, adamerging-task-wise"]!,
      },
      {
        text: "Layer-wise training raises the accuracy on the validation examples",
        holds: ({ numbers }) => numbers!["gain, adamerging"]! > 0,
      },
    ],
    async run(lab): Promise<Produced> {
      const [seed] = lab.seeds;
      const { rows, folder } = await lab.compare("curve", names, { keep: true, seeds: [seed!] });
      const curves = await Promise.all(
        names.map(async (name) => ({
          name,
          log: (await readLog(folder(name, seed!))).filter(({ validation }) => validation),
        })),
      );
      const points = curves.flatMap(({ name, log }) =>
        log.map(({ step, validation }) => ({ x: step, y: 100 * mean(validation!.accuracy), series: name })),
      );
      const numbers = Object.fromEntries(
        curves.flatMap(({ name, log }) => {
          const [first, last] = [log[0]!, log.at(-1)!].map(({ validation }) =>
            mean(validation!.accuracy),
          ) as [number, number];
          return [
            [`gain, ${name}`, last - first],
            [`validation at the end, ${name}`, last],
          ];
        }),
      );
      return {
        rows,
        seeds: [seed!],
        numbers,
        tables: [tableOf("results", rows, lab)],
        figures: [
          {
            name: "curve",
            title: "Average accuracy on the validation examples along the training",
            spec: linesSpec({
              title: "",
              x: "step",
              y: "average accuracy, %",
              spacing: "linear",
              zero: false,
              points,
            }),
          },
        ],
      };
    },
  },
];
