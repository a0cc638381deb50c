/** A thread that works out files' hashes. */
import { parentPort } from "node:worker_threads";
import { messageOf } from "../errors.js";
import { sha256 } from "../checkpoint/files.js";

parentPort?.on("message", (path: string) => {
  sha256(path).then(
    (hash) => parentPort?.postMessage({ hash }),
    (error: unknown) => parentPort?.postMessage({ failed: messageOf(error) }),
  );
});
