// The AI SDK's provider @ai-sdk/anthropic.
import { createAnthropic } from "@ai-sdk/anthropic";
import { runWith } from "./ai.mjs";
import { MODEL, URL } from "./harness.mjs";

await runWith(createAnthropic({ baseURL: `${URL}/v1`, apiKey: "none" })(MODEL));
