/**
 * Chat templates that mergekit's `chat_template` knows by name: each gives the texts that mergekit 0.1.5's of that name
 * gives (scripts/golden/chat_templates.py), white space included.
 */

/** Jinja that says a text, or what an expression comes to. */
const say = (expression: string): string => `{{- ${expression} -}}`;
const when = (condition: string, then: string): string => `{%- if ${condition} -%}${then}{%- endif -%}`;
const either = (condition: string, then: string, otherwise: string): string =>
  `{%- if ${condition} -%}${then}{%- else -%}${otherwise}{%- endif -%}`;
const each = (messages: string, said: string): string =>
  `{%- for message in ${messages} -%}${said}{%- endfor -%}`;
const fail = (why: string): string => say(`raise_exception('${why}')`);
const prompt = (text: string): string => when("add_generation_prompt", say(text));
const isFrom = (role: string): string => `message['role'] == '${role}'`;

const chatml =
  each("messages", say("'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'")) +
  prompt("'<|im_start|>assistant\\n'");

const llama3 =
  each(
    "messages",
    when("loop.first", say("bos_token")) +
      say("'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'") +
      say("message['content'] | trim + '<|eot_id|>\\n'"),
  ) + prompt("'<|start_header_id|>assistant<|end_header_id|>\\n\\n'");

const exaone =
  each(
    "messages",
    when("loop.first and message['role'] != 'system'", say("'        [|system|][|endofturn|]\\n\\n'")) +
      say("'    [|' + message['role'] + '|]' + message['content'] + '\\n'") +
      either(isFrom("user"), say("'        \\n\\n'"), say("'        [|endofturn|]\\n\\n'")),
  ) + prompt("'    [|assistant|]\\n'");

/** The headline of what somebody says. */
const headed = (role: string, headline: string): string =>
  when(
    isFrom(role),
    say(`'### ${headline}:\\n' + message['content'] | trim`) + when("not loop.last", say("'\\n\\n'")),
  );
const alpaca =
  "{%- set last = namespace(system='') -%}" +
  each("messages", when(isFrom("system"), "{%- set last.system = message['content'] | trim -%}")) +
  say("last.system + '\\n\\n'") +
  each(
    "messages",
    headed("user", "Instruction") + headed("assistant", "Response") + headed("user_context", "Input"),
  ) +
  when("add_generation_prompt and messages[-1]['role'] != 'assistant'", say("'### Response:\\n'"));

const mistral =
  either(
    "messages[0]['role'] == 'system'",
    "{%- set before = messages[0]['content'] + '\\n\\n' -%}{%- set turns = messages[1:] -%}",
    "{%- set before = '' -%}{%- set turns = messages -%}",
  ) +
  say("bos_token") +
  each(
    "turns",
    when(
      "(message['role'] == 'user') != (loop.index0 % 2 == 0)",
      fail("user and assistant must take turns, after at most one system message"),
    ) +
      either(
        isFrom("user"),
        say("' [INST] '") + when("loop.first", say("before")) + say("message['content'] + ' [/INST]'"),
        either(
          isFrom("assistant"),
          say("' ' + message['content'] + eos_token"),
          fail("only user and assistant may speak, after at most one system message"),
        ),
      ),
  );

export const chatTemplates: ReadonlyMap<string, string> = new Map([
  ["alpaca", alpaca],
  ["chatml", chatml],
  ["exaone", exaone],
  ["llama3", llama3],
  ["mistral", mistral],
]);
