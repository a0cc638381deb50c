import { conformance } from "./suite.js";

await conformance("cpu", { slow: true });
