/** What transformers' classes with a head call the tensors of a backbone and of a head. */
import type { ModelFamily } from "./types.js";

type FamilyNames = Pick<ModelFamily, "backbone" | "pooler" | "head">;

/** What a class puts before the backbone's names, with its dot: its class for spans has a name of its own. */
export const classPrefix = ({ backbone }: FamilyNames, architecture: string): string => {
  if (backbone === "model" && architecture.endsWith("ForQuestionAnswering")) return "transformer.";
  return `${backbone}.`;
};

/** Whether a class has a pooler: what is answered token by token goes through none. */
export const hasPooler = (architecture: string): boolean =>
  !/For(TokenClassification|QuestionAnswering)$/.test(architecture);

/** A backbone's tensor or module, however it is stored, with another prefix. */
export const bodyName = (stored: string, { backbone }: FamilyNames, prefix: string): string => {
  const own = `${backbone}.`;
  return prefix + (stored.startsWith(own) ? stored.slice(own.length) : stored);
};

/** Whether a head's tensor is the pooler's, where the backbone has none. */
export const isPoolerOf = ({ pooler }: FamilyNames, name: string): boolean =>
  pooler !== undefined && name.startsWith(`${pooler}.`);

/** A class of transformers, and what it puts before the backbone's names. */
interface HeadClass {
  readonly architecture: string;
  readonly prefix: string;
}

/**
 * A head's tensor under the name that a class has for it. A pooler stands in the backbone; a head in RoBERTa's form is
 * called otherwise where it scores choices or tokens.
 */
export function headName(name: string, family: FamilyNames, { architecture, prefix }: HeadClass): string {
  if (isPoolerOf(family, name)) return prefix + name;
  const { denseOfChoice } = family.head ?? {};
  const isChoice = architecture.endsWith("ForMultipleChoice");
  if (denseOfChoice === undefined || !(isChoice || architecture.endsWith("ForTokenClassification")))
    return name;
  const outputs = name.replace(/^classifier\.out_proj\./, "classifier.");
  const dense = denseOfChoice.startsWith("pooler.") ? prefix + denseOfChoice : denseOfChoice;
  return isChoice ? outputs.replace(/^classifier\.dense\./, `${dense}.`) : outputs;
}

/** What PEFT calls the modules of tensors that are saved whole: by the end of their names. */
export const savedModules = (names: readonly string[], prefix: string): string[] => {
  const modules = names.map((name) => {
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    return bare.split(".")[0] ?? bare;
  });
  return [...new Set(modules)];
};
