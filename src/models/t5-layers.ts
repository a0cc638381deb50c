import type { Tensor2D } from "@tensorflow/tfjs-core";
import { dense, denseShapes, rms, weightMatrix, type NamedShape } from "./layers.js";
import { attendBack, type SelfAttentionState } from "./kv-cache.js";
import { plus, times } from "./ops.js";
import { decoded, lookAtEncoder, type Seq2SeqState } from "./seq2seq.js";
import type { T5Config } from "./t5-config.js";
import type { Block, Weights } from "./types.js";

/** What all layers of an encoder or a decoder share: its segments, and the buckets of their relative positions. */
export interface T5Tower extends SelfAttentionState {
  readonly buckets: readonly Int32Array[];
}

type T5State = Seq2SeqState<T5Tower>;

const bare = { bare: true };

/** Modules of an attention with its norm, and their shapes. */
function attentionModules(sublayer: string, kind: string, { width, depth, heads }: T5Config) {
  const module = (name: string) => `${sublayer}.${kind}.${name}`;
  const [q, k, v, o] = [module("q"), module("k"), module("v"), module("o")];
  const norm = `${sublayer}.layer_norm`;
  const shapes: NamedShape[] = [
    [`${norm}.weight`, [width]],
    ...[q, k, v].flatMap((name) => denseShapes(name, heads * depth, width, bare)),
    ...denseShapes(o, width, heads * depth, bare),
  ];
  return { q, k, v, o, norm, shapes };
}

/** Self-attention of the encoder or the decoder, norm in front. The first layer's relative bias is every layer's. */
function selfAttention(config: T5Config, tower: "encoder" | "decoder", index: number) {
  const { heads, buckets, epsilon } = config;
  const sublayer = `${tower}.block.${index}.layer.0`;
  const { q, k, v, o, norm, shapes } = attentionModules(sublayer, "SelfAttention", config);
  const table = `${tower}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`;
  const run = (w: Weights, x: Tensor2D, state: T5Tower): Tensor2D => {
    const normal = rms(w, norm, x, epsilon);
    const relative = { table: weightMatrix(w, table), buckets: state.buckets };
    const attended = attendBack(
      sublayer,
      [dense(w, normal, q, bare), dense(w, normal, k, bare), dense(w, normal, v, bare)],
      state,
      { heads, scale: 1, relative },
    );
    return plus(x, dense(w, attended, o, bare));
  };
  const tableShape: NamedShape = [table, [buckets, heads]];
  return { shapes: [...shapes, tableShape], run };
}

/** The decoder's look at the encoder. */
function crossAttention(config: T5Config, index: number) {
  const { heads, epsilon } = config;
  const sublayer = `decoder.block.${index}.layer.1`;
  const { q, k, v, o, norm, shapes } = attentionModules(sublayer, "EncDecAttention", config);
  const run = (w: Weights, y: Tensor2D, state: T5State): Tensor2D => {
    const query = dense(w, rms(w, norm, y, epsilon), q, bare);
    const attended = lookAtEncoder(w, { query, k, v }, state, { ...bare, heads, scale: 1 });
    return plus(y, dense(w, attended, o, bare));
  };
  return { shapes, run };
}

function feedForward({ width, inner, isGated, activation, epsilon }: T5Config, sublayer: string) {
  const module = (name: string) => `${sublayer}.DenseReluDense.${name}`;
  const norm = `${sublayer}.layer_norm`;
  const [plain, gate, gated, out] = [module("wi"), module("wi_0"), module("wi_1"), module("wo")];
  const inward = isGated ? [gate, gated] : [plain];
  const shapes: NamedShape[] = [
    [`${norm}.weight`, [width]],
    ...inward.flatMap((name) => denseShapes(name, inner, width, bare)),
    ...denseShapes(out, width, inner, bare),
  ];
  const wide = (w: Weights, normal: Tensor2D): Tensor2D => {
    if (!isGated) return activation(dense(w, normal, plain, bare));
    const up = dense(w, normal, gated, bare);
    return times(activation(dense(w, normal, gate, bare)), up);
  };
  const run = (w: Weights, x: Tensor2D): Tensor2D =>
    plus(x, dense(w, wide(w, rms(w, norm, x, epsilon)), out, bare));
  return { shapes, run };
}

export function t5EncoderLayer(config: T5Config, index: number): Block<T5State> {
  const id = `encoder.block.${index}`;
  const self = selfAttention(config, "encoder", index);
  const forward = feedForward(config, `${id}.layer.1`);
  return {
    id,
    shapes: new Map([...self.shapes, ...forward.shapes]),
    run: (w, state) => ({ ...state, x: forward.run(w, self.run(w, state.x, state.encoder)) }),
  };
}

export function t5DecoderLayer(config: T5Config, index: number): Block<T5State> {
  const id = `decoder.block.${index}`;
  const self = selfAttention(config, "decoder", index);
  const cross = crossAttention(config, index);
  const forward = feedForward(config, `${id}.layer.2`);
  return {
    id,
    shapes: new Map([...self.shapes, ...cross.shapes, ...forward.shapes]),
    run: (w, state) => ({
      ...state,
      y: forward.run(w, cross.run(w, self.run(w, decoded(state), state.decoder), state)),
    }),
  };
}
