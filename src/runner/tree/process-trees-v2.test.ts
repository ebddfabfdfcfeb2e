import { testTrees } from "./tree-promises.ts";

await testTrees("v2");
