/** A text that stands where something is so. */
export const textIf = (condition: boolean, text: string): string => (condition ? text : "");

/** A fraction in percent, without the sign. */
export const percent = (value: number): string => (100 * value).toFixed(1);
