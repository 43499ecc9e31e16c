// The AI SDK's provider @ai-sdk/mistral.
import { createMistral } from "@ai-sdk/mistral";
import { runWith } from "./ai.mjs";
import { MODEL, URL } from "./harness.mjs";

await runWith(createMistral({ baseURL: `${URL}/v1`, apiKey: "none" })(MODEL));
