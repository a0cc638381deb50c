/** Rows in the columns in which data sets are published, of words that mean nothing. */
import seedrandom from "seedrandom";

export type Row = Readonly<Record<string, unknown>>;

/** Words that all texts are made of. */
export const words = (
  "the a red blue old new small large cat dog house river ship apple child doctor sees finds takes likes leaves " +
  "today never often because where who what is it not and in on good bad film news"
).split(" ");

/** What rows are drawn with. */
interface Draw {
  text(least: number, most: number): string;
  below(count: number): number;
}

function draw(seed: string): Draw {
  const random = seedrandom(seed);
  const below = (count: number) => Math.floor(random() * count);
  return {
    below,
    text: (least, most) =>
      Array.from({ length: least + below(most - least + 1) }, () => words[below(words.length)]).join(" "),
  };
}

const sentence = (by: Draw): string => `${by.text(4, 9)}.`;
const lettered = (by: Draw, count: number): Row => ({
  choices: {
    text: Array.from({ length: count }, () => by.text(1, 3)),
    label: Array.from({ length: count }, (_, i) => String.fromCharCode(65 + i)),
  },
  answerKey: String.fromCharCode(65 + by.below(count)),
});
const nli =
  (labels: number) =>
  (by: Draw): Row => ({
    premise: sentence(by),
    hypothesis: sentence(by),
    label: by.below(labels),
  });
const one =
  (name: string, labels: number) =>
  (by: Draw): Row => ({ [name]: sentence(by), label: by.below(labels) });
const two =
  (first: string, second: string, labels: number) =>
  (by: Draw): Row => ({
    [first]: sentence(by),
    [second]: sentence(by),
    label: by.below(labels),
  });

/** A row of every data set. */
const rows: Readonly<Record<string, (by: Draw) => Row>> = {
  rte: nli(2),
  cb: nli(3),
  anli_r1: nli(3),
  anli_r2: nli(3),
  anli_r3: nli(3),
  mnli: nli(3),
  copa: (by) => ({
    premise: sentence(by),
    choice1: sentence(by),
    choice2: sentence(by),
    question: by.below(2) ? "cause" : "effect",
    label: by.below(2),
  }),
  wic: (by) => ({
    word: "house",
    sentence1: `house ${sentence(by)}`,
    sentence2: `the house ${sentence(by)}`,
    start1: 0,
    start2: 4,
    label: by.below(2),
  }),
  wsc: (by) => ({
    text: `dog likes ${sentence(by)} It leaves.`.replace(/ (\S+) It/, " $1 It"),
    span1_text: "dog",
    span2_text: "likes",
    span1_index: 0,
    span2_index: 1,
    label: by.below(2),
  }),
  winogrande: (by) => ({
    sentence: `the cat ${by.text(2, 4)} the dog because _ ${by.text(2, 4)}.`,
    option1: "cat",
    option2: "dog",
    answer: String(1 + by.below(2)),
  }),
  hellaswag: (by) => ({
    activity_label: "red ship",
    ctx_a: sentence(by),
    ctx_b: "who",
    ctx: `${sentence(by)} who`,
    endings: [0, 1, 2, 3].map(() => sentence(by)),
    label: String(by.below(4)),
  }),
  story_cloze: (by) => ({
    ...Object.fromEntries([1, 2, 3, 4].map((i) => [`input_sentence_${i}`, sentence(by)])),
    sentence_quiz1: sentence(by),
    sentence_quiz2: sentence(by),
    answer_right_ending: 1 + by.below(2),
  }),
  cosmos_qa: (by) => ({
    context: sentence(by),
    question: sentence(by),
    ...Object.fromEntries([0, 1, 2, 3].map((i) => [`answer${i}`, by.text(1, 4)])),
    label: by.below(4),
  }),
  social_iqa: (by) => ({
    context: sentence(by),
    question: sentence(by),
    answerA: by.text(1, 4),
    answerB: by.text(1, 4),
    answerC: by.text(1, 4),
    label: String(1 + by.below(3)),
  }),
  paws: two("sentence1", "sentence2", 2),
  quail: (by) => ({
    context: sentence(by),
    question: sentence(by),
    answers: [0, 1, 2, 3].map(() => by.text(1, 4)),
    correct_answer_id: by.below(4),
  }),
  wiki_qa: (by) => ({
    question: sentence(by),
    document_title: "ship",
    answer: sentence(by),
    label: by.below(2),
  }),
  quartz: (by) => ({ question: sentence(by), para: sentence(by), ...lettered(by, 2) }),
  qasc: (by) => ({
    question: sentence(by),
    fact1: sentence(by),
    fact2: sentence(by),
    combinedfact: sentence(by),
    ...lettered(by, 8),
  }),
  ropes: (by) => ({
    background: sentence(by),
    situation: sentence(by),
    question: sentence(by),
    answers: { text: [by.text(1, 2)] },
  }),
  cola: one("sentence", 2),
  sst2: one("sentence", 2),
  mrpc: two("sentence1", "sentence2", 2),
  qqp: two("question1", "question2", 2),
  qnli: two("question", "sentence", 2),
  stsb: (by) => ({ sentence1: sentence(by), sentence2: sentence(by), label: by.below(51) / 10 }),
};

/** Rows of a data set's split. @throws Error where the data set is none of these */
export function publishedRows(task: string, split: string, count: number): Row[] {
  const make = rows[task];
  if (!make) throw new Error(`no rows of ${task} are made`);
  const by = draw(`${task}/${split}`);
  return Array.from({ length: count }, () => make(by));
}

/** A template in promptsource's form, of our own words. */
interface PromptEntry {
  readonly name: string;
  readonly jinja: string;
  readonly answer_choices?: string;
  readonly metadata: { readonly original_task: boolean };
}
const prompt = (jinja: string, choices?: string, original = true): PromptEntry => ({
  name: jinja.slice(0, 20),
  jinja,
  ...(choices !== undefined && { answer_choices: choices }),
  metadata: { original_task: original },
});

const ending = (context: string, choices: string, target: string): PromptEntry[] => [
  prompt(`${context}\n- {{ answer_choices | join("\\n- ") }} ||| ${target}`, choices),
  prompt(`${context} ||| ${target}`, choices),
  prompt(`What is it about? ${context} ||| a ship`, undefined, false),
];
const yesNo = (question: string, choices: string): PromptEntry[] => [
  prompt(`${question} ||| {% if label != -1 %}{{ answer_choices[label] }}{% endif %}`, choices),
];
const inText = '{{choices.text | join("|||")}}';
const byKey = "{{answer_choices[choices.label.index(answerKey)]}}";

/** Templates by promptsource's folders. */
export const promptsource: Readonly<Record<string, readonly PromptEntry[]>> = {
  "super_glue/rte": yesNo("{{premise}}\nIs it so that {{hypothesis}}", "it is ||| not"),
  "super_glue/cb": yesNo("{{premise}} {{hypothesis}}", "good ||| bad ||| not"),
  anli: yesNo("{{premise}}\n{{hypothesis}}", "good ||| it ||| bad"),
  "super_glue/copa": [
    ...ending(
      '{{ premise }} {% if question == "cause" %}because{% else %}and{% endif %}',
      "{{choice1}} ||| {{choice2}}",
      "{{ answer_choices[label] }}",
    ),
    prompt(
      '{% if question == "effect" %}{{ premise }} what ||| {{ answer_choices[label] }}{% endif %}',
      "{{choice1}} ||| {{choice2}}",
    ),
  ],
  "super_glue/wic": yesNo("{{word}}: {{sentence1}} {{sentence2}}", "not ||| good"),
  "super_glue/wsc.fixed": yesNo("{{ text }} is {{ span2_text.lower() }} {{ span1_text }}", "not ||| it is"),
  "winogrande/winogrande_xl": ending(
    "{{ sentence }}",
    "{{ option1 }} ||| {{ option2 }}",
    "{{answer_choices[answer | int - 1]}}",
  ),
  hellaswag: ending("{{ ctx }}", '{{endings | join(" ||| ")}}', "{{ answer_choices[label | int()] }}"),
  "story_cloze/2016": ending(
    "{{input_sentence_1}} {{input_sentence_4}}",
    "{{sentence_quiz1}} ||| {{sentence_quiz2}}",
    "{{answer_choices[answer_right_ending -1]}}",
  ),
  cosmos_qa: ending(
    "{{ context }} {{ question }}",
    "{{answer0}} ||| {{answer1}} ||| {{answer2}} ||| {{answer3}}",
    "{{ answer_choices[label] }}",
  ),
  social_i_qa: ending(
    "{{context}} {{question}}",
    "{{answerA}} ||| {{answerB}} ||| {{answerC}}",
    "{{answer_choices[label | int - 1]}}",
  ),
  "paws/labeled_final": yesNo("{{sentence1}} {{sentence2}}", "not ||| it is"),
  quail: ending(
    "{{ context }} {{ question }}",
    '{{answers | join("|||")}}',
    "{{ answer_choices[correct_answer_id] }}",
  ),
  wiki_qa: yesNo("{{question}} {{answer}}", "not ||| it is"),
  quartz: ending("{{ para }} {{question | trim('.')}}", inText, byKey),
  qasc: ending("{{ fact1[0]|lower }}{{ fact1[1:]|trim|trim('.') }} {{ question }}", inText, byKey),
  ropes: [
    prompt(
      "{% if answers.text %}{{ background }} {{ situation }} {{ question }} ||| {{ answers.text | choice }}{% endif %}",
    ),
  ],
};
