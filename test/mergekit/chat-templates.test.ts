import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Template } from "@huggingface/jinja";
import { expect, test } from "vitest";
import { chatTemplates } from "../../src/tasks/chat-templates.js";
import { packageFolder } from "../../src/package.js";

interface Said {
  readonly name: string;
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly prompt: boolean;
  /** Null where mergekit's template refuses. */
  readonly text: string | null;
}
const path = join(packageFolder, "test", "golden", "mergekit", "chat-templates.json");
const golden = JSON.parse(readFileSync(path, "utf8")) as Said[];

test.each([...chatTemplates])("%s says what mergekit's says", (name, template) => {
  const cases = golden.filter((one) => one.name === name);
  expect(cases.length).toBeGreaterThan(10);
  for (const { messages, prompt, text } of cases) {
    const say = () =>
      new Template(template).render({
        messages,
        add_generation_prompt: prompt,
        bos_token: "<s>",
        eos_token: "</s>",
      });
    if (text === null) expect(say).toThrow(/user and assistant/);
    else expect(say()).toBe(text);
  }
});
