/** The engines a user can ask for, in the order `auto` tries them: fastest first. */
export const engineNames = ["node-gpu", "webgpu", "node", "wasm", "cpu"] as const;
export type EngineName = (typeof engineNames)[number];
