/** "encoder.layer.3.attention.self.query.weight" → "encoder.layer.3"; outside numbered blocks, the first part. */
export function blockOf(name: string): string {
  const parts = name.split(".");
  const numbered = parts.findIndex((part) => /^\d+$/.test(part));
  return parts.slice(0, Math.max(0, numbered) + 1).join(".");
}
