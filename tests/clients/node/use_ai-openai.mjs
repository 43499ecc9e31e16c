// The AI SDK's provider @ai-sdk/openai.
import { createOpenAI } from "@ai-sdk/openai";
import { runWith } from "./ai.mjs";
import { MODEL, URL } from "./harness.mjs";

await runWith(createOpenAI({ baseURL: `${URL}/v1`, apiKey: "none" })(MODEL));
