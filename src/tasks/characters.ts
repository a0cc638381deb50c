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
function bytePlaces(text: string): CharacterSpan[] {
  const places: CharacterSpan[] = [];
  let index = 0;
  for (const character of text) {
    const place = [index, index + character.length] as const;
    for (let i = 0; i < Buffer.byteLength(character); i++) places.push(place);
    index += character.length;
  }
  return places;
}

/** Byte by byte: a token is as many bytes as it has characters. Its spaces are none of it. */
function byBytes(text: string, tokens: readonly string[]): CharacterSpan[] {
  const bytes = Buffer.from(text, "utf8");
  const places = bytePlaces(text);
  let place = 0;
  return tokens.map((token) => {
    const length = Array.from(token).filter((character) => byteCharacters.has(character)).length;
    // A space that the tokenizer put in front of the text is not there.
    const isAdded = place === 0 && token.startsWith("Ġ") && bytes[0] !== 32;
    let start = place;
    place += length - Number(isAdded);
    while (start < place && bytes[start] === 32) start++;
    const [from] = places[start] ?? [text.length];
    if (start === place) return [from, from];
    return [from, at(places, place - 1)[1]];
  });
}

/** What a tokenizer may make of a character: lower case, without accents; nothing of a control character. */
const comparable = (text: string): string =>
  text
    .normalize("NFKD")
    .replace(/[\p{Mn}\p{Cc}\p{Cf}\s]/gu, "")
    .toLowerCase();

/** A token's text without the signs of its tokenizer. */
const bareToken = (token: string): string => comparable(token.replace(/^##/, "").replaceAll("▁", ""));

/** A character as it is compared, and the one of the text that it is of. */
interface FoldedCharacter {
  readonly sign: string;
  readonly start: number;
  readonly end: number;
}

/** A text's characters as they are compared, each with its place. */
function foldedCharacters(
  text: string,
): { readonly sign: string; readonly start: number; readonly end: number }[] {
  const found: { sign: string; start: number; end: number }[] = [];
  let index = 0;
  for (const character of text) {
    const end = index + character.length;
    for (const sign of comparable(character)) found.push({ sign, start: index, end });
    index = end;
  }
  return found;
}

/** A sign that stands alone wherever it is: BERT's tokenizer cuts words at these. */
const isAlone = (sign: string): boolean => /[\p{P}\p{S}\p{Script=Han}]/u.test(sign);

/** Where the word ends that begins at a letter: at a space, or at a sign that stands alone. */
function wordEnd(letters: readonly FoldedCharacter[], from: number): number {
  let end = from + 1;
  for (; end < letters.length; end++) {
    const [before, next] = [at(letters, end - 1), at(letters, end)];
    const isApart = next.start !== before.start && next.start !== before.end;
    if (isApart || isAlone(before.sign) || isAlone(next.sign)) break;
  }
  return end;
}

/** By comparing letters. An unknown token is of the next word, or (`letters`) of what lies up to the next known one. */
function byLetters(text: string, tokens: readonly string[], spelling: "words" | "letters"): CharacterSpan[] {
  const letters = foldedCharacters(text);
  const signsOf = tokens.map((token) => Array.from(bareToken(token)));
  const matches = (signs: readonly string[] | undefined, from: number) =>
    signs !== undefined && signs.length > 0 && signs.every((sign, i) => letters[from + i]?.sign === sign);
  /** Where an unknown token ends. */
  const unknownEnd = (from: number, next: readonly string[] | undefined): number => {
    if (spelling === "words") return wordEnd(letters, from);
    // It may be of a space alone, of which nothing is compared.
    let end = from;
    while (end < letters.length && !matches(next, end)) end++;
    return end;
  };
  let place = 0;
  return signsOf.map((signs, i) => {
    const first = letters[place];
    if (signs.length === 0 || !first) {
      const end = letters[place - 1]?.end ?? 0;
      return [end, end];
    }
    const start = place;
    place = matches(signs, place)
      ? place + signs.length
      : unknownEnd(
          place,
          signsOf.slice(i + 1).find(({ length }) => length > 0),
        );
    if (place === start) return [first.start, first.start];
    return [first.start, at(letters, Math.min(place, letters.length) - 1).end];
  });
}

/** How a vocabulary spells: byte by byte (GPT-2), in parts of words (WordPiece), or otherwise. */
export type Spelling = "bytes" | "words" | "letters";

/**
 * Which characters of a text (UTF-16 units) each of its tokens is of; an empty span for a token of none.
 * @param tokens as the vocabulary spells them
 */
export function charactersOf(text: string, tokens: readonly string[], spelling: Spelling): CharacterSpan[] {
  if (spelling === "bytes") return byBytes(text, tokens);
  return byLetters(text, tokens, spelling);
}
