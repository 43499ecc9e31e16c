// What every client is asked, and how what came is reported: a line of JSON a step (scripts/clients.py).
export const URL = process.env.BASE_URL;
export const MODEL = process.env.MODEL;
export const WIND = "What is the Mistral wind?";
export const WEATHER = "What is the weather in Genoa?";
export const DESCRIPTION = "The weather in a city.";
export const RESULT = "14 degrees, mistral";
export const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

export async function run(steps) {
  for (const [step, ask] of Object.entries(steps)) {
    const started = Date.now();
    let said;
    try {
      said = { came: String(await ask()).slice(0, 300) };
    } catch (error) {
      said = { failed: `${error.name}: ${error.message}`.slice(0, 300) };
    }
    console.log(JSON.stringify({ step, seconds: (Date.now() - started) / 1000, ...said }));
  }
  process.exit(0);
}
