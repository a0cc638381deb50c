/** What transformers' classes with a head call the tensors of a backbone and of a head. */
import type { ModelFamily } from "./types.js";

type FamilyNames = Pick<ModelFamily, "backbone" | "pooler">;

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

/** A head's tensor: a pooler stands in the backbone. */
export const headName = (name: string, family: FamilyNames, prefix: string): string =>
  isPoolerOf(family, name) ? prefix + name : name;

/** What PEFT calls the modules of tensors that are saved whole: by the end of their names. */
export const savedModules = (names: readonly string[], prefix: string): string[] => {
  const modules = names.map((name) => {
    const bare = name.startsWith(prefix) ? name.slice(prefix.length) : name;
    return bare.split(".")[0] ?? bare;
  });
  return [...new Set(modules)];
};
