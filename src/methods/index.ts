/** The methods that train nothing: a method is a file beside this one and a line here. */
import { arceeFusionMethod } from "./arcee-fusion.js";
import {
  breadcrumbsMethod,
  breadcrumbsTiesMethod,
  dellaMethod,
  dellaLinearMethod,
  taskArithmeticMethod,
} from "./consensus.js";
import { fisherMethod } from "./fisher.js";
import { karcherMethod } from "./karcher.js";
import { knotsMethod } from "./knots.js";
import { averageMethod, linearMethod } from "./linear.js";
import { linesMethod } from "./lines.js";
import { modelStockMethod } from "./model-stock.js";
import { multislerpMethod } from "./multislerp.js";
import { nearswapMethod } from "./nearswap.js";
import { parameterSelectionMethod } from "./parameter-selection.js";
import { passthroughMethod } from "./passthrough.js";
import { dareMethod, magnitudePruningMethod } from "./pruning.js";
import { ramMethod, ramPlusMethod } from "./ram.js";
import { rankmeanMethod } from "./rankmean.js";
import { regmeanMethod } from "./regmean.js";
import { sceMethod } from "./sce.js";
import { cartMethod, isoCMethod, isoCtsMethod, tsvMMethod } from "./singular.js";
import { nuslerpMethod, slerpMethod } from "./slerp.js";
import { consensusTaMethod } from "./tall.js";
import { tiesMethod } from "./ties.js";
import { treatedMethod } from "./treated.js";
import type { Method } from "./types.js";
import { wudiMethod } from "./wudi.js";

export const methods: readonly Method[] = [
  averageMethod,
  linearMethod,
  taskArithmeticMethod,
  tiesMethod,
  dareMethod,
  magnitudePruningMethod,
  fisherMethod,
  regmeanMethod,
  rankmeanMethod,
  parameterSelectionMethod,
  slerpMethod,
  nuslerpMethod,
  karcherMethod,
  modelStockMethod,
  dellaMethod,
  dellaLinearMethod,
  breadcrumbsMethod,
  breadcrumbsTiesMethod,
  sceMethod,
  nearswapMethod,
  multislerpMethod,
  ramMethod,
  ramPlusMethod,
  tsvMMethod,
  isoCMethod,
  isoCtsMethod,
  cartMethod,
  wudiMethod,
  knotsMethod,
  consensusTaMethod,
  linesMethod,
  arceeFusionMethod,
  passthroughMethod,
];

/** And the one that is no merge of its own. */
export const everyMethod: readonly Method[] = [...methods, treatedMethod];

/** @throws RangeError where there is none of this name */
export function findMethod(name: string): Method {
  const found = everyMethod.find((method) => method.name === name);
  if (!found) throw new RangeError(`there is no method "${name}"`);
  return found;
}
