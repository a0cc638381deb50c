/** The methods that train nothing: a method is a file beside this one and a line here. */
import { breadcrumbs, breadcrumbsTies, della, dellaLinear, taskArithmetic } from "./consensus.js";
import { fisher } from "./fisher.js";
import { karcher } from "./karcher.js";
import { average, linear } from "./linear.js";
import { modelStock } from "./model-stock.js";
import { nearswap } from "./nearswap.js";
import { parameterSelection } from "./parameter-selection.js";
import { passthrough } from "./passthrough.js";
import { dare, magnitudePruning } from "./pruning.js";
import { rankmean } from "./rankmean.js";
import { regmean } from "./regmean.js";
import { sce } from "./sce.js";
import { nuslerp, slerp } from "./slerp.js";
import { ties } from "./ties.js";
import { treated } from "./treated.js";
import type { Method } from "./types.js";

export const methods: readonly Method[] = [
  average,
  linear,
  taskArithmetic,
  ties,
  dare,
  magnitudePruning,
  fisher,
  regmean,
  rankmean,
  parameterSelection,
  slerp,
  nuslerp,
  karcher,
  modelStock,
  della,
  dellaLinear,
  breadcrumbs,
  breadcrumbsTies,
  sce,
  nearswap,
  passthrough,
];

/** And the one that is no merge of its own. */
export const everyMethod: readonly Method[] = [...methods, treated];

/** A method by its name. @throws RangeError where there is none: names from users are checked before */
export function methodNamed(name: string): Method {
  const found = everyMethod.find((method) => method.name === name);
  if (!found) throw new RangeError(`there is no method "${name}"`);
  return found;
}
