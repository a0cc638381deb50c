import { zeros, type Tensor2D } from "@tensorflow/tfjs-core";
import { at } from "../at.js";
import { attend } from "./attention.js";
import { configReader, sectionOf, slidingLayers } from "./config.js";
import { pipeline, rowOutputs, type State } from "./encoder.js";
import {
  activationNames,
  activations,
  dense,
  denseShapes,
  lookUpRows,
  weightVector,
  type NamedShape,
} from "./layers.js";
import { attentionBias, windowBias } from "./layout.js";
import { layerNorm } from "./norms.js";
import { columns, plus, times } from "./ops.js";
import { headInputs, meanOfTokens } from "./outputs.js";
import { angles, frequencies, rotary, type Angles, type Frequencies } from "./rope.js";
import type { Block, BuildOptions, Config, Model, ModelFamily, SegmentBias, Weights } from "./types.js";

/** How a layer's tokens see each other: all, or those near by, with rotations of their own. */
interface Sight {
  /** How far a token sees to either side. */
  readonly reach: number;
  readonly rotations: Frequencies;
}

interface ModernState extends State {
  readonly sights: readonly { readonly bias: readonly SegmentBias[]; readonly angles: Angles }[];
}

function parseModernBert(json: Config) {
  const { size, positive, only, heads: headsOf } = configReader(json, "modernbert");
  const width = size("hidden_size");
  const heads = headsOf("num_attention_heads", width);
  const layers = size("num_hidden_layers", 1, 1000);
  const positions = size("max_position_embeddings");
  const every = size("global_attn_every_n_layers", 1, 1000, 3);
  // Layers have biases or none; ModernBERT's own have none anywhere.
  for (const key of ["attention_bias", "mlp_bias", "norm_bias", "classifier_bias"]) only(key, false);
  const given = sectionOf(json, "rope_parameters");
  const rotations = (kind: string, theta: unknown): Frequencies =>
    frequencies({ rope_theta: theta, rope_parameters: sectionOf(given, kind) }, width / heads, positions);
  const sights: [full: Sight, near: Sight] = [
    { reach: Infinity, rotations: rotations("full_attention", json["global_rope_theta"] ?? 160_000) },
    {
      reach: Math.floor(size("local_attention", 1, 1e6, 128) / 2),
      rotations: rotations("sliding_attention", json["local_rope_theta"] ?? 10_000),
    },
  ];
  return {
    width,
    heads,
    layers,
    positions,
    inner: size("intermediate_size"),
    vocabulary: size("vocab_size"),
    padId: size("pad_token_id", 0, 1e6, 0),
    epsilon: positive("norm_eps", 1e-5),
    activation: only("hidden_activation", "gelu", ...activationNames),
    headActivation: only("classifier_activation", "gelu", ...activationNames),
    pooling: only("classifier_pooling", "cls", "mean"),
    sights,
    sightOf: slidingLayers(json, layers, (i) => i % every !== 0).map(Number),
  };
}
type ModernConfig = ReturnType<typeof parseModernBert>;

const bare = { bare: true };

/** A layer normalisation that only scales. */
function scaling(w: Weights, module: string, x: Tensor2D, epsilon: number): Tensor2D {
  const scale = weightVector(w, `${module}.weight`);
  return layerNorm(x, scale, zeros([x.shape[1]]), epsilon);
}

const scaleShape = (module: string, { width }: ModernConfig): NamedShape => [`${module}.weight`, [width]];

function gated(w: Weights, x: Tensor2D, module: string, { inner, activation }: ModernConfig): Tensor2D {
  const both = dense(w, x, `${module}.Wi`, bare);
  const opened = activations[activation](columns(both, { start: 0, size: inner }));
  return dense(w, times(opened, columns(both, { start: inner, size: inner })), `${module}.Wo`, bare);
}

/** A layer with its norms in front; the first has none before its attention. */
function modernLayer(config: ModernConfig, index: number): Block<ModernState> {
  const { width, heads, inner, epsilon } = config;
  const layer = `layers.${index}`;
  const [attnNorm, mlpNorm] = [`${layer}.attn_norm`, `${layer}.mlp_norm`];
  const scale = 1 / Math.sqrt(width / heads);
  return {
    id: layer,
    shapes: new Map([
      ...(index > 0 ? [scaleShape(attnNorm, config)] : []),
      ...denseShapes(`${layer}.attn.Wqkv`, 3 * width, width, bare),
      ...denseShapes(`${layer}.attn.Wo`, width, width, bare),
      scaleShape(mlpNorm, config),
      ...denseShapes(`${layer}.mlp.Wi`, 2 * inner, width, bare),
      ...denseShapes(`${layer}.mlp.Wo`, width, inner, bare),
    ]),
    run(w, state) {
      const sight = at(state.sights, at(config.sightOf, index));
      const entered = index > 0 ? scaling(w, attnNorm, state.x, epsilon) : state.x;
      const projected = dense(w, entered, `${layer}.attn.Wqkv`, bare);
      const third = (i: number) => columns(projected, { start: i * width, size: width });
      const turned = (i: number) => rotary(third(i), heads, sight.angles);
      const attended = attend(
        [turned(0), turned(1), third(2)],
        { queries: sight.bias, keys: sight.bias },
        { heads, scale },
      );
      const middle = plus(state.x, dense(w, attended, `${layer}.attn.Wo`, bare));
      const made = gated(w, scaling(w, mlpNorm, middle, epsilon), `${layer}.mlp`, config);
      return { ...state, x: plus(middle, made) };
    },
  };
}

/** What a head is given of every row: its first token, or the mean of all. Every token, where it is put to each. */
function pooledTokens(state: State, { pooling }: ModernConfig): Tensor2D {
  if (pooling === "cls" || state.batch.rows.some(({ everyToken }) => everyToken)) return headInputs(state);
  return meanOfTokens(state);
}

/** The prediction head: dense, activation, norm. Masked language models have it, so that bases and experts do. */
const head = "head";
const predictionHead = (config: ModernConfig): Block<ModernState> => ({
  id: head,
  shapes: new Map([
    ...denseShapes(`${head}.dense`, config.width, config.width, bare),
    scaleShape(`${head}.norm`, config),
  ]),
  run(w, state) {
    const made = dense(w, pooledTokens(state, config), `${head}.dense`, bare);
    return {
      ...state,
      x: scaling(w, `${head}.norm`, activations[config.headActivation](made), config.epsilon),
    };
  },
});

const words = "embeddings.tok_embeddings.weight";
const finalNorm = "final_norm";

function buildModernBert(json: Config, { withoutPooler = false }: BuildOptions = {}): Model {
  const config = parseModernBert(json);
  const { width, heads, vocabulary, epsilon, layers } = config;
  const embeddings: Block<ModernState> = {
    id: "embeddings",
    shapes: new Map([[words, [vocabulary, width]], scaleShape("embeddings.norm", config)]),
    run: (w, state) => ({
      ...state,
      x: scaling(w, "embeddings.norm", lookUpRows(w, { name: words, ids: state.batch.ids }), epsilon),
    }),
  };
  const last: Block<ModernState> = {
    id: finalNorm,
    shapes: new Map([scaleShape(finalNorm, config)]),
    run: (w, state) => ({ ...state, x: scaling(w, finalNorm, state.x, epsilon) }),
  };
  return pipeline<ModernState>({
    blocks: [
      embeddings,
      ...Array.from({ length: layers }, (_, i) => modernLayer(config, i)),
      last,
      // Vectors of texts go through no head.
      withoutPooler ? rowOutputs() : predictionHead(config),
    ],
    tables: [words],
    width,
    heads,
    vocabulary,
    padId: Math.min(config.padId, vocabulary - 1),
    maxLength: config.positions,
    lookups: ({ ids }) => [{ name: words, ids }],
    start(initial) {
      const { segments, positions } = initial.batch;
      const sights = config.sights.map(({ reach, rotations }) => ({
        bias: segments.map((segment) =>
          reach === Infinity ? attentionBias(segment) : windowBias(segment, reach),
        ),
        angles: angles(positions, rotations),
      }));
      return { ...initial, bias: at(sights, 0).bias, sights };
    },
  });
}

/**
 * ModernBERT (Warner et al. 2024): rotary positions, gated feed-forwards, no biases; of three layers two see the
 * neighbourhood alone. What stands between its last layer and a task's outputs is the model's, and is merged with it.
 */
export const modernbert: ModelFamily = {
  types: { modernbert: { title: "ModernBERT", className: "ModernBert" } },
  outputLayers: ["pool"],
  head: { weight: "classifier.weight", bias: "classifier.bias" },
  backbone: "model",
  canonical: (name) => name.replace(/^model\./, ""),
  build: buildModernBert,
};
