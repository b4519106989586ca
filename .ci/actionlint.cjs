// Lints GitHub workflows with actionlint 1.7.7, as `.ci/test-tools` puts it into target/tools/actionlint:
//
//   node .ci/actionlint.cjs FILE...
//
// Prints one problem a line. Exit codes: 0 none, 1 problems.
const fs = require("node:fs");
const path = require("node:path");

const tool = path.join(__dirname, "../target/tools/actionlint");
require(path.join(tool, "wasm_exec.js"));

async function main(files) {
  const go = new globalThis.Go();
  const wasm = fs.readFileSync(path.join(tool, "main.wasm"));
  const { instance } = await WebAssembly.instantiate(wasm, go.importObject);
  // Ends only with the process.
  go.run(instance);
  let code = 0;
  for (const file of files) {
    for (const problem of globalThis.runActionlint(fs.readFileSync(file, "utf8"), file)) {
      if (!problem.message) continue;
      console.log(`${file}:${problem.line}:${problem.column}: ${problem.message}`);
      code = 1;
    }
  }
  process.exit(code);
}

globalThis.throwError = (message) => {
  throw new Error(message);
};
main(process.argv.slice(2));
