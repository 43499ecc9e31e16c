// Claude Code, headless, with its default tools.
import { headless } from "./headless.mjs";
import { MODEL, URL, WIND, run } from "./harness.mjs";
import { createRequire } from "node:module";

const wrapper = createRequire(import.meta.url).resolve("@anthropic-ai/claude-code/cli-wrapper.cjs");
const environment = {
  ANTHROPIC_BASE_URL: URL,
  ANTHROPIC_AUTH_TOKEN: "none",
  ANTHROPIC_SMALL_FAST_MODEL: MODEL,
  CLAUDE_CODE_MAX_OUTPUT_TOKENS: "200",
  CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
  DISABLE_AUTOUPDATER: "1",
  DISABLE_TELEMETRY: "1",
  DISABLE_ERROR_REPORTING: "1",
  API_TIMEOUT_MS: "100000",
};

await run({
  headless: () => headless(process.execPath, [wrapper, "-p", WIND, "--model", MODEL, "--max-turns", "2"], environment),
});
