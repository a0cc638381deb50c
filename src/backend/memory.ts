import { engine } from "@tensorflow/tfjs-core";

/** tfjs's own books: a buffer is counted once, however many handles share it. */
interface Books {
  state: { tensorInfo: { get(id: object): { bytes: number } | undefined; has(id: object): boolean } };
  trackTensor(tensor: { dataId: object }, backend: unknown): void;
  removeDataId(id: object, backend: unknown): void;
}

/** They are private to tfjs, which has no other way to see a buffer come and go. */
const tfjsBooks = (): Books => engine();

let live = 0;
let highest = 0;
let watching = false;

/**
 * Counts the bytes of all buffers that tfjs holds from now on. What a kernel takes for itself while it
 * runs is not in it.
 * @returns the highest count since the last call of `reset`, and the count now
 */
export function watchMemory(): { peak(): number; live(): number; reset(): void } {
  if (!watching) {
    watching = true;
    const books = tfjsBooks();
    const { tensorInfo } = books.state;
    const [track, remove] = [books.trackTensor.bind(books), books.removeDataId.bind(books)];
    books.trackTensor = (tensor, backend) => {
      const known = tensorInfo.has(tensor.dataId);
      track(tensor, backend);
      if (known) return;
      live += tensorInfo.get(tensor.dataId)?.bytes ?? 0;
      highest = Math.max(highest, live);
    };
    books.removeDataId = (id, backend) => {
      live -= tensorInfo.get(id)?.bytes ?? 0;
      remove(id, backend);
    };
  }
  return { peak: () => highest, live: () => live, reset: () => void (highest = live) };
}
