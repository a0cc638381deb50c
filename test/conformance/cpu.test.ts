import { conformance } from "./suite.js";

await conformance("cpu", { real: false });
