/**
 * SentencePiece's models (spiece.model), as tokenizers that were never saved as fast ones are published: T5 and its
 * kin. Read into what a tokenizer.json would hold; what SentencePiece does to a text before is done exactly, by the
 * table in its file.
 */
import { readFile, stat } from "node:fs/promises";
import { PbfReader } from "pbf";
import { messageOf, UserError } from "../errors.js";
import { refuseIrregular } from "./files.js";

/** A token, its log-probability, and what kind of token it is. */
interface Piece {
  readonly text: string;
  readonly score: number;
  readonly type: number;
}
const kinds = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

/** How a text is made ready. */
interface Normalizer {
  /** A table of what replaces what; nothing is replaced without. */
  readonly charsmap: Uint8Array;
  readonly dummyPrefix: boolean;
  readonly collapses: boolean;
}

interface SentencePiece {
  readonly pieces: readonly Piece[];
  /** 1 is unigram. */
  readonly modelType: number;
  readonly normalizer: Normalizer;
}

/** sentencepiece_model.proto: the fields that are read, by number. */
function readPiece(tag: number, piece: { text: string; score: number; type: number }, pbf: PbfReader): void {
  if (tag === 1) piece.text = pbf.readString();
  else if (tag === 2) piece.score = pbf.readFloat();
  else if (tag === 3) piece.type = pbf.readVarint();
}

function readNormalizer(
  tag: number,
  found: { charsmap: Uint8Array; dummyPrefix: boolean; collapses: boolean },
  pbf: PbfReader,
): void {
  if (tag === 2) found.charsmap = pbf.readBytes();
  else if (tag === 3) found.dummyPrefix = pbf.readBoolean();
  else if (tag === 4) found.collapses = pbf.readBoolean();
}

interface Found {
  pieces: Piece[];
  modelType: number;
  normalizer: { charsmap: Uint8Array; dummyPrefix: boolean; collapses: boolean };
}

function readField(tag: number, found: Found, pbf: PbfReader): void {
  if (tag === 1) found.pieces.push(pbf.readMessage(readPiece, { text: "", score: 0, type: kinds.normal }));
  else if (tag === 2)
    pbf.readMessage((field, into: Found, inner) => {
      if (field === 3) into.modelType = inner.readVarint();
    }, found);
  else if (tag === 3) pbf.readMessage(readNormalizer, found.normalizer);
}

/** A longer file is no tokenizer. */
const longest = 64 * 2 ** 20;

/** @throws UserError where it is no such file */
async function readModel(path: string): Promise<SentencePiece> {
  await refuseIrregular(path);
  const { size } = await stat(path);
  if (size > longest) throw new UserError(`${path}: it is ${size} bytes long, which no tokenizer is`);
  const found: Found = {
    pieces: [],
    modelType: 1,
    normalizer: { charsmap: new Uint8Array(), dummyPrefix: true, collapses: true },
  };
  try {
    new PbfReader(await readFile(path)).readFields(readField, found);
  } catch (error) {
    throw new UserError(`${path}: it is no SentencePiece model (${messageOf(error)})`);
  }
  if (found.pieces.length === 0)
    throw new UserError(`${path}: it is no SentencePiece model (it has no pieces)`);
  return found;
}

/** A unit of the double array in which SentencePiece keeps its table (darts-clone). */
const unit = {
  hasLeaf: (value: number) => ((value >>> 8) & 1) === 1,
  value: (value: number) => value & 0x7fffffff,
  label: (value: number) => (value & 0x800000ff) >>> 0,
  offset: (value: number) => (value >>> 10) << ((value & 0x200) >>> 6),
};

/** What replaces the longest known beginning of some bytes: where its text begins, and how many bytes it replaces. */
type Lookup = (
  bytes: Uint8Array,
  from: number,
) => { readonly text: number; readonly length: number } | undefined;

function doubleArray(units: Uint32Array): Lookup {
  return (bytes, from) => {
    let found: { text: number; length: number } | undefined;
    let node = unit.offset(units[0] ?? 0);
    for (let i = from; i < bytes.length; i++) {
      const byte = bytes[i] ?? 0;
      node ^= byte;
      const value = units[node];
      if (value === undefined || unit.label(value) !== byte) break;
      node ^= unit.offset(value);
      if (unit.hasLeaf(value)) found = { text: unit.value(units[node] ?? 0), length: i + 1 - from };
    }
    return found;
  };
}

/** How many bytes a character takes that begins with this one. */
const characterBytes = (first: number): number => {
  if (first < 0x80) return 1;
  if (first < 0xe0) return 2;
  return first < 0xf0 ? 3 : 4;
};

/** A text by a charsmap: a double array's length in bytes, the array, and the texts that it points into. */
function replacing(charsmap: Uint8Array): (text: string) => string {
  if (charsmap.length === 0) return (text) => text;
  const view = new DataView(charsmap.buffer, charsmap.byteOffset, charsmap.byteLength);
  const size = view.byteLength < 4 ? NaN : view.getUint32(0, true);
  if (!(size % 4 === 0 && size <= charsmap.length - 4)) throw new Error("its charsmap is cut");
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => view.getUint32(4 + 4 * i, true));
  const texts = charsmap.subarray(4 + size);
  const lookup = doubleArray(units);
  const decoder = new TextDecoder();
  return (text) => {
    const bytes = new TextEncoder().encode(text);
    let out = "";
    for (let i = 0; i < bytes.length;) {
      const found = lookup(bytes, i);
      if (found) {
        const end = texts.indexOf(0, found.text);
        out += decoder.decode(texts.subarray(found.text, end < 0 ? texts.length : end));
        i += found.length;
      } else {
        const next = i + characterBytes(bytes[i] ?? 0);
        out += decoder.decode(bytes.subarray(i, next));
        i = next;
      }
    }
    return out;
  };
}

/** A tokenizer that a SentencePiece model stands for. */
export interface SentencePieceTokenizer {
  /** As tokenizer.json would say it, but for what is done to a text before. */
  readonly json: Readonly<Record<string, unknown>>;
  prepare(text: string): string;
}

/** T5's tokens for places in a text, which stand behind the model's, the last first. */
const extraTokens = (count: number): string[] =>
  Array.from({ length: count }, (_, i) => `<extra_id_${count - 1 - i}>`);

/**
 * The tokenizer of T5 and its kin: a text, and the end behind it.
 * @param extra how many tokens for places there are behind the model's
 * @throws UserError where the model is of another kind than T5's
 */
export async function readSentencePiece(path: string, extra: number): Promise<SentencePieceTokenizer> {
  const { pieces, modelType, normalizer } = await readModel(path);
  const end = pieces.findIndex(({ text }) => text === "</s>");
  const unknown = pieces.findIndex(({ type }) => type === kinds.unknown);
  const isOther = pieces.some(({ text, type }) => type === kinds.byte || /^(<cls>|\[CLS\])$/.test(text));
  if (modelType !== 1 || end < 0 || unknown < 0 || isOther)
    throw new UserError(
      `${path}: it is not of T5's kind (unigrams, with an end and an unknown token); save the tokenizer as a fast ` +
        "one (save_pretrained, tokenizer.json)",
    );
  const special = pieces.flatMap(({ text, type }, id) =>
    type === kinds.control || type === kinds.unknown ? [{ id, content: text }] : [],
  );
  const places = extraTokens(extra).map((content, i) => ({ id: pieces.length + i, content }));
  const { charsmap, dummyPrefix, collapses } = normalizer;
  const replaced = replacing(charsmap);
  return {
    prepare(text) {
      const plain = replaced(text);
      const kept = collapses ? plain.replaceAll(/ +/g, " ").replaceAll(/^ | $/g, "") : plain;
      return dummyPrefix && kept !== "" ? ` ${kept}` : kept;
    },
    json: {
      model: {
        type: "Unigram",
        unk_id: unknown,
        vocab: [
          ...pieces.map(({ text, score }) => [text, score]),
          ...places.map(({ content }) => [content, 0]),
        ],
      },
      normalizer: null,
      pre_tokenizer: { type: "Metaspace", replacement: "▁", prepend_scheme: "never" },
      decoder: { type: "Metaspace", replacement: "▁", prepend_scheme: dummyPrefix ? "always" : "never" },
      post_processor: {
        type: "TemplateProcessing",
        single: [{ Sequence: { id: "A", type_id: 0 } }, { SpecialToken: { id: "</s>", type_id: 0 } }],
        pair: [
          { Sequence: { id: "A", type_id: 0 } },
          { SpecialToken: { id: "</s>", type_id: 0 } },
          { Sequence: { id: "B", type_id: 0 } },
          { SpecialToken: { id: "</s>", type_id: 0 } },
        ],
        special_tokens: { "</s>": { id: "</s>", ids: [end], tokens: ["</s>"] } },
      },
      added_tokens: [...special, ...places].map((token) => ({
        ...token,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
    },
  };
}
