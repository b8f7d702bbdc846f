// The reader of openapi.json: what there is, and a form to try it. Text goes into the page as text, never as markup.

const node = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
};

/// Words with code between backticks.
const words = (text) => (text ?? "").split("`").map((part, index) => (index % 2 ? node("code", {}, part) : part));

const key = document.getElementById("key");
key.value = sessionStorage.getItem("docs-key") ?? "";
key.addEventListener("change", () => sessionStorage.setItem("docs-key", key.value));

const response = await fetch("openapi.json");
const api = await response.json();

const named = (schema) => schema?.$ref?.split("/").pop();
const resolved = (schema) => (schema?.$ref ? api.components.schemas[named(schema)] : schema) ?? {};

/// A type in words: "string or null", "list of native.Prediction".
const type = (schema = {}) => {
  if (schema.$ref) return named(schema);
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return choices.map(type).join(" or ");
  if (schema.type === "array") return `list of ${type(schema.items)}`;
  const format = schema.format ? ` (${schema.format})` : "";
  return [schema.type ?? "anything"].flat().join(" or ") + format;
};

const limits = (schema = {}) =>
  [
    schema.enum && `one of ${schema.enum.join(", ")}`,
    schema.minimum !== undefined && `from ${schema.minimum}`,
    schema.maximum !== undefined && `to ${schema.maximum}`,
    schema.multipleOf && `a multiple of ${schema.multipleOf}`,
    schema.default !== undefined && `${JSON.stringify(schema.default)} if left out`,
  ]
    .filter(Boolean)
    .join(", ");

const field = (name, schema, required, description) =>
  node(
    "div",
    { className: "field" },
    node("code", {}, name),
    node(
      "div",
      {},
      node("span", { className: "type" }, `${type(schema)}${required ? ", required" : ""}`),
      node("div", {}, ...words(description)),
      node("div", { className: "about" }, limits(schema)),
    ),
  );

/// The fields of an object; those of objects in it can be opened.
const fields = (schema, depth = 0) => {
  const { properties = {}, required = [], items, allOf, oneOf } = resolved(schema);
  if (items) return fields(items, depth);
  if (allOf ?? oneOf) return node("div", {}, ...(allOf ?? oneOf).map((part) => fields(part, depth)));
  return node(
    "div",
    {},
    ...Object.entries(properties).map(([name, property]) => {
      const line = field(name, property, required.includes(name), property.description);
      const inner = [property, property.items, ...(property.oneOf ?? [])].find((part) => part?.$ref);
      if (!inner || depth > 2) return line;
      const more = node("details", {}, node("summary", {}, named(inner)));
      more.addEventListener("toggle", () => more.children.length > 1 || more.append(node("div", {}, fields(inner, depth + 1))));
      return node("div", {}, line, more);
    }),
  );
};

const shown = (value) => node("pre", { tabIndex: 0 }, typeof value === "string" ? value : JSON.stringify(value, null, 2));

const body = (content, heading) =>
  Object.entries(content ?? {}).map(([mediaType, { schema, example }]) =>
    node(
      "div",
      {},
      node("h3", {}, `${heading} ${mediaType} ${named(schema) ?? ""}`),
      fields(schema),
      example !== undefined ? shown(example) : null,
    ),
  );

/// A form that sends the request, and shows what comes back.
const trial = (method, path, operation) => {
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const input = node("input", { name: parameter.name, required: parameter.required === true });
    return { parameter, input };
  });
  const mediaType = Object.keys(operation.requestBody?.content ?? {})[0];
  const example = operation.requestBody?.content[mediaType]?.example;
  const isForm = mediaType === "multipart/form-data";
  const picture = isForm ? node("input", { type: "file", accept: "image/*", required: true }) : null;
  const prompt = isForm ? node("input", { value: example?.prompt ?? "" }) : null;
  const text = mediaType && !isForm ? node("textarea", { value: JSON.stringify(example ?? {}, null, 2), spellcheck: false }) : null;
  const answer = node("div", { ariaLive: "polite" });
  const send = async (event) => {
    event.preventDefault();
    const headers = new Headers();
    const query = new URLSearchParams();
    let url = path.slice(1);
    for (const { parameter, input } of inputs.filter(({ input }) => input.value !== "")) {
      if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
      if (parameter.in === "query") query.set(parameter.name, input.value);
      if (parameter.in === "header") headers.set(parameter.name, input.value);
    }
    if (key.value) headers.set("Authorization", `Bearer ${key.value}`);
    let sent = text?.value;
    if (text) headers.set("Content-Type", mediaType);
    if (isForm) {
      sent = new FormData();
      sent.set("image", picture.files[0]);
      sent.set("prompt", prompt.value);
    }
    answer.replaceChildren(node("p", { className: "about" }, "Asking…"));
    try {
      const got = await fetch(query.size ? `${url}?${query}` : url, { method: method.toUpperCase(), headers, body: sent });
      const head = [...got.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
      const isImage = got.headers.get("content-type")?.startsWith("image/");
      let content;
      if (isImage) content = node("img", { src: URL.createObjectURL(await got.blob()), alt: "The picture" });
      else {
        const came = await got.text();
        let value = came;
        try { value = JSON.parse(came); } catch { /* It is shown as it came. */ }
        content = shown(value);
      }
      answer.replaceChildren(
        node("h3", { className: got.ok ? "" : "bad" }, `${got.status} ${got.statusText}`),
        shown(head),
        content,
      );
    } catch (error) {
      answer.replaceChildren(node("p", { className: "bad" }, String(error)));
    }
  };
  const form = node(
    "form",
    {},
    node("h3", {}, "Try it"),
    ...inputs.map(({ parameter, input }) =>
      node("div", { className: "field" }, node("code", {}, parameter.name), node("label", { ariaLabel: parameter.name }, input)),
    ),
    picture && node("div", { className: "field" }, node("code", {}, "image"), node("label", {}, picture)),
    prompt && node("div", { className: "field" }, node("code", {}, "prompt"), node("label", {}, prompt)),
    text && node("label", {}, "Body", text),
    node("p", {}, node("button", {}, "Send")),
    answer,
  );
  form.addEventListener("submit", send);
  return form;
};

const operation = (method, path, item) => {
  const described = item[method];
  const about = Object.values(described.responses).find(({ description }) => description)?.description;
  const content = node("div");
  const whole = node(
    "details",
    { id: described.operationId },
    node(
      "summary",
      {},
      node("span", { className: "method" }, method),
      node("span", { className: "path" }, path),
      node("span", { className: "about" }, described.summary ?? about ?? ""),
    ),
    content,
  );
  whole.addEventListener("toggle", () => {
    if (!whole.open || content.children.length) return;
    content.append(
      ...[
        item["x-also-at"] && node("p", { className: "about" }, `Also at ${item["x-also-at"].join(", ")}`),
        described.description && node("p", {}, ...words(described.description)),
        described.security && node("p", { className: "about" }, `Needs an API key with the scope ${described.security[0].key[0]}.`),
        described.parameters && node("h3", {}, "Parameters"),
        ...(described.parameters ?? []).map((parameter) =>
          field(`${parameter.name} (${parameter.in})`, parameter.schema, parameter.required, parameter.description),
        ),
        ...body(described.requestBody?.content, "Body"),
        trial(method, path, described),
        ...Object.entries(described.responses).map(([status, response]) =>
          node(
            "details",
            {},
            node("summary", {}, node("span", { className: "method" }, status), node("span", {}, ...words(response.description))),
            node("div", {}, ...body(response.content, "")),
          ),
        ),
      ].filter(Boolean),
    );
  });
  whole.dataset.words = `${method} ${path} ${described.operationId} ${described.summary} ${about}`.toLowerCase();
  return { tag: described.tags[0], whole };
};

const operations = Object.entries(api.paths).flatMap(([path, item]) =>
  Object.keys(item)
    .filter((method) => !method.startsWith("x-"))
    .map((method) => operation(method, path, item)),
);

const parts = api.tags.map(({ name, description }) =>
  node(
    "section",
    {},
    node("h2", { id: name }, name),
    node("p", { className: "about" }, ...words(description)),
    ...operations.filter(({ tag }) => tag === name).map(({ whole }) => whole),
  ),
);

document.getElementById("tags").append(...api.tags.map(({ name }) => node("a", { href: `#${name}` }, name)));
const main = document.getElementById("operations");
main.replaceChildren(...parts);
main.ariaBusy = "false";

document.getElementById("find").addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase();
  for (const { whole } of operations) whole.hidden = !whole.dataset.words.includes(wanted);
  for (const part of parts) part.hidden = part.querySelectorAll("details[id]:not([hidden])").length === 0;
});

const opened = document.getElementById(location.hash.slice(1));
if (opened) opened.open = true;
opened?.scrollIntoView();
