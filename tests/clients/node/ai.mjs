// Vercel's AI SDK with one of its providers: text, streams, tools, objects.
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import { DESCRIPTION, RESULT, SCHEMA, WEATHER, WIND, run } from "./harness.mjs";

export async function runWith(model) {
  const get_weather = tool({ description: DESCRIPTION, inputSchema: jsonSchema(SCHEMA), execute: async () => RESULT });
  const agent = { model, prompt: WEATHER, tools: { get_weather }, stopWhen: stepCountIs(4), maxRetries: 0 };
  const call = { type: "tool-call", toolCallId: "call_abc123", toolName: "get_weather", input: { city: "Genoa" } };
  const result = { ...call, type: "tool-result", output: { type: "text", value: RESULT } };
  await run({
    plain: async () => (await generateText({ model, prompt: WIND, maxRetries: 0 })).text,
    stream: async () => {
      let text = "";
      for await (const piece of streamText({ model, prompt: WIND, maxRetries: 0 }).textStream) text += piece;
      return text;
    },
    tool: async () => (await generateText(agent)).text,
    tool_stream: async () => {
      let text = "";
      for await (const piece of streamText(agent).textStream) text += piece;
      return text;
    },
    structured: async () => {
      const schema = jsonSchema({ type: "object", properties: { a: { type: "integer" } }, required: ["a"], additionalProperties: false });
      const wanted = { model, prompt: WIND, output: Output.object({ schema }), maxOutputTokens: 100, maxRetries: 0 };
      return JSON.stringify((await generateText(wanted)).output);
    },
    history: async () => {
      const messages = [
        { role: "user", content: WEATHER },
        { role: "assistant", content: [{ type: "text", text: "Let me look." }, call] },
        { role: "tool", content: [result] },
      ];
      return (await generateText({ model, messages, tools: { get_weather }, maxRetries: 0 })).text;
    },
  });
}
