// Node's http and https with a keep-alive agent as a caller: BASE CA sequence|connections. See __init__.py.
"use strict";
const fs = require("fs");
const [base, ca, what] = process.argv.slice(2);
const http = require(base.startsWith("https") ? "https" : "http");
const agent = new http.Agent({ keepAlive: true, ca: fs.readFileSync(ca) });
const large = "0123456789abcdef".repeat(65536);

function ask(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(base + path, { method, agent, headers }, (answer) => {
      const parts = [];
      answer.on("data", (part) => parts.push(part));
      answer.on("end", () => resolve({ answer, text: Buffer.concat(parts).toString() }));
      answer.on("error", reject);
    });
    request.on("error", reject);
    if (headers.Expect) {
      request.on("continue", () => request.end(body)); // without a 100 this never ends
      request.flushHeaders();
      request.setTimeout(5000, () => request.destroy(new Error("no 100")));
    } else {
      request.end(body);
    }
  });
}

async function expect(name, status, framing, body, asked) {
  try {
    const { answer, text } = await asked;
    const right = answer.statusCode === status && text === body && answer.headers["x-framing"] === framing;
    const length = name !== "head" || answer.headers["content-length"] === "5";
    console.log(name, right && length ? "ok" : `failed ${answer.statusCode} ${text.length}`);
  } catch (error) {
    console.log(name, "failed", error.message);
  }
}

async function sequence() {
  const sized = { "Content-Length": large.length };
  await expect("get", 200, "none", "hello", ask("GET", "/"));
  await expect("head", 200, "none", "", ask("HEAD", "/"));
  await expect("204", 204, "none", "", ask("GET", "/empty"));
  await expect("chunked-answer", 200, "none", "parts of it", ask("GET", "/chunked"));
  await expect("large", 200, "none", large, ask("GET", "/large"));
  await expect("post", 200, "length", large, ask("POST", "/echo", large, sized));
  await expect("post-chunked", 200, "chunked", large, ask("POST", "/echo", large, { "Transfer-Encoding": "chunked" }));
  await expect("expect", 200, "length", "waits", ask("POST", "/echo", "waits", { Expect: "100-continue", "Content-Length": 5 }));
}

async function connections() {
  try {
    const all = await Promise.all(Array.from({ length: 8 }, () => ask("GET", "/slow")));
    const right = all.every(({ answer, text }) => answer.statusCode === 200 && text === "hello");
    console.log("connections", right ? "ok" : "failed");
  } catch (error) {
    console.log("connections", "failed", error.message);
  }
}

(what === "connections" ? connections() : sequence()).then(() => agent.destroy());
