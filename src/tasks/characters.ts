/** Which characters of a text each of its tokens is of, found from the tokens' own spelling. */
import { at } from "../at.js";

export type CharacterSpan = readonly [start: number, end: number];

/** GPT-2's characters for bytes: printable ones are themselves, the others follow 255. */
const byteCharacters = ((): ReadonlyMap<string, number> => {
  const isPrintable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  const found = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++)
    found.set(String.fromCharCode(isPrintable(byte) ? byte : next++), byte);
  return found;
})();

/** Of every byte of a text in UTF-8, the character that it is of. */
function bytePlaces(text: string): number[] {
  const places: number[] = [];
  let index = 0;
  for (const character of text) {
    const { length } = Buffer.from(character, "utf8");
    for (let i = 0; i < length; i++) places.push(index);
    index += character.length;
  }
  return places;
}

/** Byte by byte: a token is as many bytes as it has characters. Its spaces are none of it. */
function byBytes(text: string, tokens: readonly string[]): CharacterSpan[] {
  const bytes = Buffer.from(text, "utf8");
  const places = bytePlaces(text);
  const placeAt = (byte: number) => places[byte] ?? text.length;
  let place = 0;
  return tokens.map((token) => {
    const length = [...token].filter((character) => byteCharacters.has(character)).length;
    // A space that the tokenizer put in front of the text is not there.
    const skipped = place === 0 && token.startsWith("Ġ") && bytes[0] !== 32 ? 1 : 0;
    let start = place;
    place += length - skipped;
    while (start < place - 1 && bytes[start] === 32) start++;
    return [placeAt(start), placeAt(place)];
  });
}

/** What a tokenizer may make of a character: lower case, without accents; nothing of a control character. */
const folded = (text: string): string =>
  text
    .normalize("NFKD")
    .replace(/[\p{Mn}\p{Cc}\p{Cf}\s]/gu, "")
    .toLowerCase();

/** A token's text without the signs of its tokenizer. */
const plainToken = (token: string): string => folded(token.replace(/^##/, "").replaceAll("▁", ""));

/** A text's characters as they are compared, each with its place. */
function foldedCharacters(
  text: string,
): { readonly sign: string; readonly start: number; readonly end: number }[] {
  const found: { sign: string; start: number; end: number }[] = [];
  let index = 0;
  for (const character of text) {
    const end = index + character.length;
    for (const sign of folded(character)) found.push({ sign, start: index, end });
    index = end;
  }
  return found;
}

/** By comparing letters; a token that is not in the text (an unknown one) is of what lies up to the next. */
function byLetters(text: string, tokens: readonly string[]): CharacterSpan[] {
  const letters = foldedCharacters(text);
  const matches = (signs: readonly string[], from: number) =>
    signs.every((sign, i) => letters[from + i]?.sign === sign);
  let place = 0;
  let isLost = false;
  const spans: CharacterSpan[] = [];
  for (const token of tokens) {
    const signs = [...plainToken(token)];
    const end = letters[place - 1]?.end ?? 0;
    if (signs.length === 0) {
      spans.push([end, end]);
      continue;
    }
    let from = place;
    // Behind an unknown token, the next that is known is looked for.
    if (isLost) while (from < letters.length && !matches(signs, from)) from++;
    if (!matches(signs, from)) {
      isLost = true;
      const next = letters[place];
      spans.push([next?.start ?? text.length, next?.end ?? text.length]);
      continue;
    }
    if (isLost && from > place) {
      const last = spans.length - 1;
      spans[last] = [at(spans, last)[0], at(letters, from - 1).end];
    }
    isLost = false;
    place = from + signs.length;
    spans.push([at(letters, from).start, at(letters, place - 1).end]);
  }
  return spans;
}

/**
 * Which characters of a text (UTF-16 units) each of its tokens is of; an empty span for a token of none.
 * @param tokens as the vocabulary spells them
 * @param isByteLevel whether they are spelled byte by byte (GPT-2)
 */
export const charactersOf = (
  text: string,
  tokens: readonly string[],
  isByteLevel: boolean,
): CharacterSpan[] => (isByteLevel ? byBytes(text, tokens) : byLetters(text, tokens));
