// OpenAI's Codex, headless, with its default tools, over the Responses API.
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { headless, home } from "./headless.mjs";
import { MODEL, URL, WIND, run } from "./harness.mjs";

const program = join(dirname(createRequire(import.meta.url).resolve("@openai/codex/package.json")), "bin", "codex.js");
mkdirSync(join(home, ".codex"));
writeFileSync(
  join(home, ".codex", "config.toml"),
  `model = "${MODEL}"
model_provider = "here"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.here]
name = "here"
base_url = "${URL}/v1"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`,
);

await run({
  headless: () =>
    headless(process.execPath, [program, "exec", "--skip-git-repo-check", "--sandbox", "read-only", WIND], {
      CODEX_HOME: join(home, ".codex"),
      OPENAI_API_KEY: "none",
    }),
});
