// A command line agent, run once with its default tools in a folder and a home of its own.
import { spawn } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const home = mkdtempSync(join(tmpdir(), "clients-"));

export function headless(command, words, environment) {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env.PATH, HOME: home, LANG: "C.UTF-8", ...environment };
    const child = spawn(command, words, { cwd: home, env, stdio: ["ignore", "pipe", "pipe"] });
    let out = "", err = "";
    child.stdout.on("data", (data) => (out += data));
    child.stderr.on("data", (data) => (err += data));
    const timer = setTimeout(() => child.kill("SIGKILL"), 120_000);
    child.on("close", (code) => {
      clearTimeout(timer);
      if (code === 0 && out.trim()) resolve(out.trim());
      else reject(new Error(`exit ${code}: ${err.slice(-200)} ${out.slice(-200)}`));
    });
  });
}
