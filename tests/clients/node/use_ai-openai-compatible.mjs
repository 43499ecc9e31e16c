// The AI SDK's provider @ai-sdk/openai-compatible.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { runWith } from "./ai.mjs";
import { MODEL, URL } from "./harness.mjs";

await runWith(createOpenAICompatible({ name: "here", supportsStructuredOutputs: true, baseURL: `${URL}/v1`, apiKey: "none" })(MODEL));
