import { conformance } from "./suite.js";

await conformance("webgpu", { parts: ["models"] });
