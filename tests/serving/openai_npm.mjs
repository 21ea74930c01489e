// Asks the server of $OPENAI_BASE_URL as front ends do, and prints what came back as JSON.
import OpenAI, { toFile } from "openai";

const client = new OpenAI({ maxRetries: 0 });

/** Width and height of a PNG. */
const sides = (bytes) => [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];

async function paint(asked) {
  const answer = await client.images.generate({ prompt: "a red house", n: 1, ...asked });
  const [picture] = answer.data;
  const base64 = typeof picture.b64_json === "string";
  const bytes = base64
    ? Buffer.from(picture.b64_json, "base64")
    : Buffer.from(await (await fetch(picture.url)).arrayBuffer());
  return { size: answer.size, painted: answer.painted_size, bytes: sides(bytes), base64 };
}

async function refusal(ask, more = []) {
  try {
    await ask();
    return ["not refused"];
  } catch (error) {
    return [error.status, error.code, ...more.map((name) => error[name])];
  }
}

const picture = () => toFile(Buffer.alloc(1_000_000), "picture.png", { type: "image/png" });
const stream = await client.images.generate({
  prompt: "a red house",
  stream: true,
  partial_images: 2,
  num_inference_steps: 9,
});
const events = [];
for await (const event of stream) events.push(event.type);

console.log(
  JSON.stringify({
    models: (await client.models.list()).data.map((model) => model.id),
    librechat: await paint({ model: "dall-e-3", size: "1024x1024", quality: "standard", style: "vivid" }),
    openwebui: await paint({ model: "dall-e-2", size: "512x512", response_format: "b64_json" }),
    gpt: await paint({ model: "gpt-image-1", size: "1536x1024", quality: "high", background: "auto" }),
    events,
    edit: await refusal(async () => client.images.edit({ image: await picture(), prompt: "red" })),
    variation: await refusal(async () => client.images.createVariation({ image: await picture() })),
    refused: await refusal(() => paint({ size: "9999x9999" }), ["param"]),
    token: await refusal(() => new OpenAI({ apiKey: "wrong", maxRetries: 0 }).models.list()),
  }),
);
