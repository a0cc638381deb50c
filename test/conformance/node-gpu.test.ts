import { conformance } from "./suite.js";

await conformance("node-gpu");
