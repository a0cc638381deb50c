/** Which part of a model a tensor belongs to, in the words of mergekit's `modules`. */
import type { Member } from "../checkpoint/family.js";
import { someOf } from "../disk/partners.js";
import { UserError } from "../errors.js";
import { nearest } from "../nearest.js";
import type { MergekitFile, MergekitModule } from "./file.js";

/** What lies where in a model, by its names; what none of these is, is the rest. */
const modelParts: readonly (readonly [part: string, names: RegExp])[] = [
  ["projector", /(^|\.)(multi_modal_projector|visual\.(merger|deepstack_merger_list))\./],
  ["vision", /(^|\.)(vision_tower|vision_model|visual)\./],
  ["encoder", /^(model\.)?encoder\./],
  ["decoder", /^(model\.)?decoder\./],
];

/** mergekit's names of modules. */
const modules: ReadonlyMap<string, string> = new Map([
  ["multi_modal_projector", "projector"],
  ["vision_tower", "vision"],
  ["vision_model", "vision"],
  ["encoder", "encoder"],
  ["decoder", "decoder"],
  ["text_decoder", "rest"],
  ["shared", "rest"],
  ["default", "rest"],
]);

const partNamed = (name: string): string => modelParts.find(([, names]) => names.test(name))?.[0] ?? "rest";

/** A module's part of a model; the default one is all of it. */
export function partOf(member: Member, { name }: MergekitModule): Member {
  if (name === "default") return member;
  const actual = [...member.actual].filter(([canonical]) => partNamed(canonical) === modules.get(name));
  return { ...member, actual: new Map(actual) };
}

/**
 * Modules must be ones that are known, and hold all of the model.
 * @param where the file and the line of its modules
 * @throws UserError naming what is not
 */
export function checkModules({ modules: all }: MergekitFile, { actual }: Member, where: string): void {
  if (all.length === 1 && all.every(({ name }) => name === "default")) return;
  if (all.some(({ name }) => name === "default"))
    throw new UserError(`${where}: default is all of the model, and there are other modules beside it`);
  for (const { name, slices } of all) {
    if (!modules.has(name))
      throw new UserError(
        `${where}: module ${name} is not known${nearest(name, modules.keys())}; known are ` +
          [...modules.keys()].join(", "),
      );
    if (slices && modules.get(name) !== "rest")
      throw new UserError(`${where}: ${name}: a module other than the text decoder takes models, not slices`);
  }
  const taken = all.map(({ name }) => modules.get(name));
  const twice = all.find((_, i) => taken.indexOf(taken[i]) !== i);
  if (twice) throw new UserError(`${where}: module ${twice.name} names a part that another one has`);
  const left = [...actual.keys()].filter((name) => !taken.includes(partNamed(name)));
  if (left.length)
    throw new UserError(`${where}: ${left.length} tensors are in none of its modules: ${someOf(left)}`);
}
