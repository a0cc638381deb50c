/** Bounds of what the hub, or what stands in for it, may do to us. */
import { UserError } from "../errors.js";

export interface HubBounds {
  /** Milliseconds in which {@link leastBytes} must come; an answer as a whole takes no longer. */
  readonly patience: number;
  /** Of a file that is fetched, in that time. */
  readonly leastBytes: number;
  /** Bytes of all answers about one model, unpacked. */
  readonly answerBytes: number;
  /** Requests about one model, files left aside. */
  readonly requests: number;
}

export const hubBounds: HubBounds = {
  patience: 60_000,
  leastBytes: 60_000,
  answerBytes: 64 * 2 ** 20,
  requests: 200,
};

/** Ends a request that is slower than it may be. */
export interface Watched {
  readonly signal: AbortSignal;
  heard(bytes: number): void;
  end(): void;
}

/** Watches over a request: in every {@link HubBounds.patience} so many bytes must be heard. */
export function watchRequest({ patience, leastBytes }: HubBounds): Watched {
  const controller = new AbortController();
  let heard = 0;
  const timer = setInterval(() => {
    if (heard < leastBytes) controller.abort(new Error(`it sent ${heard} bytes in ${patience / 1000} s`));
    heard = 0;
  }, patience);
  return {
    signal: controller.signal,
    heard: (bytes) => void (heard += bytes),
    end: () => clearInterval(timer),
  };
}

/**
 * What asks a hub about one model: within the bounds, and nobody but the hub, since the user's token goes along.
 * @throws UserError where an answer is too long or leads elsewhere or in a circle; Error where it takes too long
 */
export function boundedFetch(hub: string, bounds: HubBounds): typeof fetch {
  const asked = new Set<string>();
  let bytes = 0;
  return async (input, init) => {
    const url = new URL(new Request(input).url);
    if (url.origin !== new URL(hub).origin)
      throw new UserError(`${hub}: its list goes on at another host (${url.host}), which is not asked`);
    if (asked.has(url.href)) throw new UserError(`${hub}: its list of files goes in a circle`);
    asked.add(url.href);
    if (asked.size > bounds.requests)
      throw new UserError(`${hub}: its list of files has over ${bounds.requests} pages`);
    const late = AbortSignal.timeout(bounds.patience);
    const response = await fetch(input, { ...init, signal: late });
    const parts: Uint8Array[] = [];
    for await (const part of response.body ?? []) {
      parts.push(part);
      bytes += part.length;
      if (bytes > bounds.answerBytes)
        throw new UserError(
          `${hub}: its answers about one model are over ${bounds.answerBytes / 2 ** 20} MiB; is that the hub?`,
        );
    }
    const { status, statusText, headers } = response;
    return new Response(Buffer.concat(parts), { status, statusText, headers });
  };
}
