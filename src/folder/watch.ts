/** Serves the page of a run on this machine alone, while it grows. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { UserError, errorCode } from "../errors.js";
import { livePage, stepOf, versionOf, type Seen } from "./live.js";

export interface Watch {
  readonly url: string;
  close(): Promise<void>;
}

/** Only what a browser on this machine asks of this address: no other site's page reads it under a name of its own. */
const isOwn = ({ headers: { host = "" } }: IncomingMessage, port: number): boolean =>
  host === `127.0.0.1:${port}` || host === `localhost:${port}`;

/**
 * @param port 0 takes one that is free
 * @param alone whether the process goes on for it
 */
export async function watchFolder(folder: string, port = 0, alone = false): Promise<Watch> {
  const seen: Seen[] = [];
  const look = async () => {
    const step = await stepOf(folder);
    const last = seen.at(-1);
    if (step === undefined || step === last?.step) return;
    // Another training began.
    if (last && step < last.step) seen.length = 0;
    seen.push({ step, at: Date.now() });
  };
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const say = (code: number, type: string, body: string) => {
      response.writeHead(code, { "content-type": `${type}; charset=utf-8`, "cache-control": "no-store" });
      response.end(body);
    };
    const address = server.address();
    const own = typeof address === "object" && address !== null ? address.port : port;
    if (!isOwn(request, own)) return say(403, "text/plain", "ask for 127.0.0.1");
    if (request.method !== "GET") return say(405, "text/plain", "only GET");
    if (request.url === "/version") return say(200, "text/plain", await versionOf(folder));
    if (request.url !== "/") return say(404, "text/plain", "there is one page: /");
    await look();
    return say(200, "text/html", await livePage(folder, seen));
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => {
      response.writeHead(500, { "content-type": "text/plain; charset=utf-8" });
      response.end(String(error));
    });
  });
  await new Promise<void>((done, fail) => {
    server.once("error", (error) => {
      fail(
        errorCode(error) === "EADDRINUSE"
          ? new UserError(`--port ${port}: something else listens there; choose another, or leave it out`)
          : error,
      );
    });
    server.listen(port, "127.0.0.1", done);
  });
  const looking = setInterval(() => void look().catch(() => {}), 2000);
  looking.unref();
  if (!alone) server.unref();
  const bound = server.address();
  const own = typeof bound === "object" && bound !== null ? bound.port : port;
  return {
    url: `http://127.0.0.1:${own}/`,
    close: () =>
      new Promise<void>((done) => {
        clearInterval(looking);
        server.closeAllConnections();
        server.close(() => done());
      }),
  };
}
