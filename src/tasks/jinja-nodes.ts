/**
 * Parsed templates of @huggingface/jinja: the names in them, and functions of ours in place of what it does otherwise
 * than Jinja2.
 */
import { isObject } from "./columns.js";

/** A part of a parsed template. */
type Node = Record<string, unknown> & { readonly type: string };
const isNode = (value: unknown): value is Node => isObject(value) && typeof value["type"] === "string";
const nodesIn = (value: unknown): Node[] => {
  if (value instanceof Map) return [...value].flat().filter(isNode);
  return [value].flat().filter(isNode);
};
const identifier = (value: string): Node => ({ type: "Identifier", value });
const nameOf = (node: Node | undefined): string => String(node?.["value"]);
const call = (name: string, args: readonly unknown[]): Node => ({
  type: "CallExpression",
  callee: identifier(name),
  args,
});

/** Names of ours that no template can have. */
export const own = { write: "write ", equal: "equal ", filter: "filter ", method: "method " } as const;

/** Names of filters and methods that are ours. */
export interface Ours {
  readonly filters: ReadonlySet<string>;
  readonly methods: ReadonlySet<string>;
}

/** A filter as a call, where it is one of ours. */
function asFilter(node: Node, { filters }: Ours): Node {
  const [filter] = nodesIn(node["filter"]);
  const [callee] = nodesIn(filter?.["callee"]);
  const name = String(callee?.["value"] ?? filter?.["value"]);
  if (!filters.has(name)) return node;
  return call(own.filter + name, [node["operand"], ...nodesIn(filter?.["args"])]);
}

/** A call of a method as one of ours, where it is one. */
function asMethod(node: Node, { methods }: Ours): Node {
  const [callee] = nodesIn(node["callee"]);
  const [property] = nodesIn(callee?.["property"]);
  const name = String(property?.["value"]);
  if (callee?.type !== "MemberExpression" || callee["computed"] === true) return node;
  if (!methods.has(name)) return node;
  return call(own.method + name, [callee["object"], ...nodesIn(node["args"])]);
}

function asComparison(node: Node): Node {
  const { operator, left, right } = node;
  const sign = isObject(operator) ? operator["value"] : undefined;
  if (sign === "==") return call(own.equal, [left, right]);
  if (sign !== "!=") return node;
  return { type: "UnaryExpression", operator: { value: "not" }, argument: call(own.equal, [left, right]) };
}

/** `is none`, which is a comparison. */
function asTest(node: Node): Node {
  if (nameOf(nodesIn(node["test"])[0]) !== "none") return node;
  const same = call(own.equal, [node["operand"], identifier("none")]);
  return node["negate"] === true
    ? { type: "UnaryExpression", operator: { value: "not" }, argument: same }
    : same;
}

const replacements: Readonly<Record<string, (node: Node, ours: Ours) => Node>> = {
  FilterExpression: asFilter,
  CallExpression: asMethod,
  BinaryExpression: asComparison,
  TestExpression: asTest,
};

/** Parts of a template that say nothing themselves. */
const silent = new Set(["If", "For", "Set", "Macro", "Break", "Continue", "Comment", "CallStatement"]);
const bodies = new Set(["body", "alternate", "defaultBlock"]);

/** What stands in a body is written as Python writes it. */
const asSaid = (node: unknown): unknown =>
  isNode(node) && !silent.has(node.type) && node.type !== "StringLiteral" ? call(own.write, [node]) : node;

/** A template with our functions in place of what the interpreter does otherwise. */
export function rewritten(value: unknown, ours: Ours): unknown {
  if (Array.isArray(value)) return value.map((one) => rewritten(one, ours));
  if (value instanceof Map)
    return new Map(
      [...value].map(([name, one]: [unknown, unknown]) => [rewritten(name, ours), rewritten(one, ours)]),
    );
  if (!isNode(value)) return value;
  const parts = Object.entries(value).map(([name, part]) => {
    const made = rewritten(part, ours);
    return [name, bodies.has(name) && Array.isArray(made) ? made.map(asSaid) : made] as const;
  });
  const node: Node = { ...Object.fromEntries(parts), type: value.type };
  return replacements[node.type]?.(node, ours) ?? node;
}

/** Names in a template: those that it reads, those of which it asks whether they are there, and those that it sets. */
export interface Names {
  readonly reads: Set<string>;
  readonly asks: Set<string>;
  readonly sets: Set<string>;
}

/** What a name or a list of names stands for. */
const targets = (node: Node): string[] =>
  node.type === "Identifier" ? [nameOf(node)] : nodesIn(node["value"]).map(nameOf);

/** Parts of a node that names stand in, after its own are kept. */
function partsWithNames(node: Node, { reads, asks, sets }: Names): unknown[] {
  const [filter] = nodesIn(node["filter"]);
  const [operand] = nodesIn(node["operand"]);
  const asked = operand?.type === "Identifier" ? nameOf(operand) : undefined;
  switch (node.type) {
    case "Identifier":
      reads.add(nameOf(node));
      return [];
    case "MemberExpression":
      return [node["object"], node["computed"] === true && node["property"]];
    case "TestExpression":
      if (asked !== undefined && nameOf(nodesIn(node["test"])[0]).endsWith("defined")) asks.add(asked);
      return [operand];
    case "KeywordArgumentExpression":
      return [node["value"]];
    case "FilterExpression":
      if (asked !== undefined && nameOf(nodesIn(filter?.["callee"])[0]) === "default") asks.add(asked);
      return [operand, filter?.["args"]];
    case "For":
      nodesIn(node["loopvar"])
        .flatMap(targets)
        .forEach((name) => sets.add(name));
      return [node["iterable"], node["body"], node["defaultBlock"]];
    case "Set":
      nodesIn(node["assignee"])
        .flatMap(targets)
        .forEach((name) => sets.add(name));
      return [node["value"], node["body"]];
    default:
      // An operator that is a word is no name.
      return Object.entries(node).map(([name, part]) => name !== "operator" && part);
  }
}

export function namesIn(value: unknown, names: Names): void {
  for (const node of nodesIn(value)) for (const part of partsWithNames(node, names)) namesIn(part, names);
}
