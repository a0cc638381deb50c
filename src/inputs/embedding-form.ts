/** How a model's folder says that texts become vectors: the files of sentence-transformers. */
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readJson, writeText } from "../checkpoint/files.js";
import { openSafetensors } from "../checkpoint/safetensors.js";
import { firstIssue, UserError } from "../errors.js";
import { poolings, type EmbeddingDense, type EmbeddingForm, type Pooling } from "../models/embedding.js";
import { toFloat32 } from "../tensor/dtype.js";

const moduleList = "modules.json";
const poolingFolder = "1_Pooling";
const weightFile = "model.safetensors";

/** A module of theirs; its type is a Python class. A path outside the folder is none. */
const modulesSchema = z.array(
  z.object({ path: z.string().regex(/^[\w.-]*\/?$/, "it must be the name of a folder"), type: z.string() }),
);
type Modules = z.infer<typeof modulesSchema>;

const denseSchema = z.object({
  in_features: z.number().int().positive(),
  out_features: z.number().int().positive(),
  bias: z.boolean().default(true),
  activation_function: z.string().default("torch.nn.modules.activation.Tanh"),
  module_input_name: z.literal("sentence_embedding").optional(),
});

const className = (type: string): string => type.split(".").at(-1) ?? "";
const inFolder = (folder: string, path: string, file: string): string =>
  join(folder, path.replace(/\/$/, ""), file);

async function parsed<T>(path: string, schema: z.ZodType<T>): Promise<T> {
  const found = schema.safeParse(await readJson(path));
  if (!found.success) throw new UserError(`${path}: ${firstIssue(found.error)}`);
  return found.data;
}

/** The keys under which sentence-transformers says which pooling is used, before version 5.3 and since. */
const flags: Readonly<Record<Pooling, string>> = {
  cls: "pooling_mode_cls_token",
  mean: "pooling_mode_mean_tokens",
  mean_sqrt_len: "pooling_mode_mean_sqrt_len_tokens",
  weightedmean: "pooling_mode_weightedmean_tokens",
  lasttoken: "pooling_mode_lasttoken",
};

const isPooling = (name: string): name is Pooling => Object.hasOwn(poolings, name);

async function poolingIn(path: string): Promise<Pooling> {
  const config = await parsed(path, z.record(z.string(), z.unknown()));
  const named: unknown[] = [config["pooling_mode"] ?? []].flat();
  const set = Object.keys(config).filter((key) => key.startsWith("pooling_mode_") && config[key] === true);
  const found =
    named.length > 0 ? named.map((name) => String(name).replace(/_tokens$/, "")) : set.map(nameOf);
  const [one, ...others] = found;
  if (one === undefined || others.length > 0 || !isPooling(one))
    throw new UserError(
      `${path}: the pooling is ${found.join(" and ") || "none"}; one of ${Object.keys(poolings).join(", ")} is ` +
        "supported",
    );
  return one;
}

const nameOf = (flag: string): string =>
  Object.entries(flags).find(([, key]) => key === flag)?.[0] ?? flag.replace("pooling_mode_", "");

async function denseIn(folder: string, path: string): Promise<EmbeddingDense> {
  const config = await parsed(inFolder(folder, path, "config.json"), denseSchema);
  const weights = inFolder(folder, path, weightFile);
  if (!existsSync(weights))
    throw new UserError(`${weights}: it is not there; save the model with sentence-transformers 3 or newer`);
  const activation = className(config.activation_function).toLowerCase();
  if (activation !== "tanh" && activation !== "identity")
    throw new UserError(
      `${folder}/${path}: the activation ${activation} is not supported, only tanh and identity`,
    );
  const file = await openSafetensors(weights);
  try {
    const read = async (name: string, size: number) => {
      if (!file.entries.has(name)) throw new UserError(`${weights}: there is no "${name}"`);
      const values = toFloat32(await file.read(name));
      if (values.length !== size)
        throw new UserError(`${weights}: "${name}" has ${values.length} entries, not ${size}`);
      return values;
    };
    const { in_features: width, out_features: out } = config;
    return {
      weight: await read("linear.weight", width * out),
      out,
      bias: config.bias ? await read("linear.bias", out) : undefined,
      activation,
    };
  } finally {
    await file.close();
  }
}

const sentenceConfig = z.looseObject({ do_lower_case: z.boolean().nullish() });
const modelConfig = z.looseObject({
  prompts: z.record(z.string(), z.string()).nullish(),
  similarity_fn_name: z.string().nullish(),
});

/** What changes a text or a score, and is not done here. */
async function refuseOthers(folder: string): Promise<void> {
  const sentence = join(folder, "sentence_bert_config.json");
  if (existsSync(sentence) && (await parsed(sentence, sentenceConfig)).do_lower_case === true)
    throw new UserError(
      `${sentence}: do_lower_case is not supported; write the data in lower case and take it out`,
    );
  const config = join(folder, "config_sentence_transformers.json");
  if (!existsSync(config)) return;
  const { prompts, similarity_fn_name: similarity } = await parsed(config, modelConfig);
  if (similarity && similarity !== "cosine")
    throw new UserError(`${config}: similarity_fn_name is ${similarity}; only cosine is supported`);
  const [prompt] = Object.entries(prompts ?? {}).filter(([, text]) => text !== "");
  if (prompt)
    throw new UserError(
      `${config}: the prompt "${prompt[0]}" would be put before texts; write the prompts into the data and take them ` +
        "out",
    );
}

async function modulesOf(folder: string): Promise<Modules> {
  return parsed(join(folder, moduleList), modulesSchema);
}

async function formIn(folder: string): Promise<EmbeddingForm> {
  await refuseOthers(folder);
  const dense: EmbeddingDense[] = [];
  let pooling: Pooling = "mean";
  const modules = await modulesOf(folder);
  const kinds = modules.map(({ type }) => className(type));
  if (!/^Transformer Pooling( Dense)*( Normalize)?$/.test(kinds.join(" ")))
    throw new UserError(
      `${join(folder, moduleList)}: the modules are ${kinds.join(", ")}; those that are read are Transformer, ` +
        "Pooling, then perhaps Dense layers and Normalize",
    );
  for (const [i, { path }] of modules.entries()) {
    if (kinds[i] === "Pooling") pooling = await poolingIn(inFolder(folder, path, "config.json"));
    if (kinds[i] === "Dense") dense.push(await denseIn(folder, path));
  }
  return { pooling, dense };
}

/**
 * The form that some folders say, read where a task asks for it: the mean of all tokens, where none says any.
 * @param folders of the model with the tokenizer, and of its experts
 */
export async function embeddingForm(folders: readonly string[]): Promise<() => EmbeddingForm> {
  const saying = folders.filter((folder) => existsSync(join(folder, moduleList)));
  let problem: unknown;
  let form: EmbeddingForm | undefined;
  try {
    for (const folder of saying) {
      const own = await formIn(folder);
      if (form && JSON.stringify(own) !== JSON.stringify(form))
        throw new UserError(
          `${folder} makes vectors in another way than ${saying[0]} (modules.json: pooling, dense layers); models ` +
            "are merged where these are alike",
        );
      form = own;
    }
  } catch (error) {
    problem = error;
  }
  return () => {
    // Whoever asks for no vectors is not stopped.
    if (problem !== undefined) throw problem;
    return form ?? { pooling: "mean", dense: [] };
  };
}

/**
 * Makes a result a folder that sentence-transformers opens, where its base brought no modules: the mean of all tokens.
 */
export async function keepEmbeddingFiles(
  out: string,
  { width, maxLength }: { readonly width: number; readonly maxLength: number },
): Promise<void> {
  if (existsSync(join(out, moduleList))) return;
  const type = (name: string) => `sentence_transformers.models.${name}`;
  await writeText(join(out, moduleList), [
    { idx: 0, name: "0", path: "", type: type("Transformer") },
    { idx: 1, name: "1", path: poolingFolder, type: type("Pooling") },
  ]);
  await mkdir(join(out, poolingFolder), { recursive: true });
  await writeText(join(out, poolingFolder, "config.json"), {
    word_embedding_dimension: width,
    ...Object.fromEntries(Object.values(flags).map((flag) => [flag, flag === flags.mean])),
    pooling_mode_max_tokens: false,
  });
  await writeText(join(out, "sentence_bert_config.json"), {
    max_seq_length: maxLength,
    do_lower_case: false,
  });
}
