// openai for Node: chat, streams, tools, the Responses API, and a history of another model's.
import OpenAI from "openai";
import { DESCRIPTION, MODEL, RESULT, SCHEMA, URL, WEATHER, WIND, run } from "./harness.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "none", maxRetries: 0 });
const fn = { name: "get_weather", description: DESCRIPTION, parameters: SCHEMA };
const tools = [{ type: "function", function: fn }];
const question = { role: "user", content: WEATHER };
const ask = async (messages, more = {}) =>
  (await client.chat.completions.create({ model: MODEL, messages, ...more })).choices[0].message;
const finish = async (message) => {
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: RESULT };
  return (await ask([question, message, result], { tools })).content;
};

await run({
  plain: async () => (await ask([{ role: "user", content: WIND }])).content,
  stream: async () => {
    let text = "";
    const messages = [{ role: "user", content: WIND }];
    for await (const chunk of await client.chat.completions.create({ model: MODEL, messages, stream: true }))
      text += chunk.choices[0]?.delta?.content ?? "";
    return text;
  },
  tool: async () => finish(await ask([question], { tools })),
  tool_stream: async () => {
    const stream = client.chat.completions.stream({ model: MODEL, messages: [question], tools });
    return finish((await stream.finalChatCompletion()).choices[0].message);
  },
  history: async () => {
    const call = { id: "call_1", type: "function", function: { name: "get_weather", arguments: '{"city": "Genoa"}' } };
    const start = "It is 14 degrees in";
    const messages = [
      question,
      { role: "assistant", content: "Let me look.", tool_calls: [call] },
      { role: "tool", tool_call_id: "call_1", content: RESULT },
      { role: "assistant", content: start },
    ];
    return start + (await ask(messages, { tools })).content;
  },
  responses: async () => {
    const content = [{ type: "input_text", text: WIND }];
    return (await client.responses.create({ model: MODEL, input: [{ role: "user", content }] })).output_text;
  },
});
