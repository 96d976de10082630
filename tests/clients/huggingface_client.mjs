// Asks a service with Hugging Face's client for JavaScript; see test_heavy.py, which runs it.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [url, photo, folder] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { InferenceClient } = require("@huggingface/inference");
const client = new InferenceClient("any", { endpointUrl: url });
const data = new Blob([readFileSync(photo)]);
const answer = await client.imageClassification({ data });
let failure = "";
try {
    await client.imageClassification({ data: new Blob(["hello"]) });
} catch (error) {
    failure = String(error.message);
}
console.log(JSON.stringify({ answer, failure }));
