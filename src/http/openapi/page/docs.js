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

const PICTURES = "image/png,image/jpeg,image/webp";
const isFile = (schema) => resolved(schema).format === "binary";

/// A field to fill in, under its name.
const asked = (name, input) => node("label", { className: "field" }, node("code", {}, name), input);

/// What a body of a media type is written or chosen with, and how what was given is sent.
const bodyForm = (mediaType, { schema, example }) => {
  if (mediaType === "multipart/form-data") {
    const { properties = {}, required = [] } = resolved(schema);
    const inputs = Object.entries(properties).map(([name, property]) => {
      const given = isFile(property) ? { type: "file", accept: PICTURES } : { value: example?.[name] ?? "" };
      return node("input", { name, required: required.includes(name), ...given });
    });
    const sent = () => {
      const form = new FormData();
      for (const { name, files, value } of inputs) if (value !== "") form.set(name, files?.[0] ?? value);
      return form;
    };
    return { element: node("div", {}, ...inputs.map((input) => asked(input.name, input))), sent };
  }
  if (isFile(schema)) {
    const input = node("input", { type: "file", accept: PICTURES, required: true });
    return { element: asked("Body", input), sent: () => input.files[0], type: () => input.files[0].type || mediaType };
  }
  const text = node("textarea", { value: JSON.stringify(example ?? {}, null, 2), spellcheck: false });
  return { element: node("label", {}, "Body", text), sent: () => text.value, type: () => mediaType };
};

/// The body's part of a form: for each of its media types one, of which one is chosen.
const bodyChoice = (content) => {
  const forms = Object.entries(content).map(([mediaType, media]) => ({ mediaType, ...bodyForm(mediaType, media) }));
  if (forms.length < 2) return { elements: forms.map(({ element }) => element), chosen: () => forms[0] };
  const choice = node("select", {}, ...forms.map(({ mediaType }) => node("option", {}, mediaType)));
  const place = node("div", {}, forms[0].element);
  choice.addEventListener("change", () => place.replaceChildren(forms[choice.selectedIndex].element));
  return { elements: [asked("Media type", choice), place], chosen: () => forms[choice.selectedIndex] };
};

/// The request that a form's inputs make: its URL, and what `fetch` is told.
const requestOf = (method, path, inputs, body) => {
  const headers = new Headers();
  const query = new URLSearchParams();
  let url = path.slice(1);
  for (const { parameter, input } of inputs.filter(({ input }) => input.value !== "")) {
    if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    if (parameter.in === "query") query.set(parameter.name, input.value);
    if (parameter.in === "header") headers.set(parameter.name, input.value);
  }
  if (key.value) headers.set("Authorization", `Bearer ${key.value}`);
  // A form's own type has a boundary in it, which the browser knows.
  if (body?.type) headers.set("Content-Type", body.type());
  return [query.size ? `${url}?${query}` : url, { method: method.toUpperCase(), headers, body: body?.sent() }];
};

/// An answer as it is read: its status, its head, and its picture or text.
const answered = async (got) => {
  const head = [...got.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  let content;
  if (got.headers.get("content-type")?.startsWith("image/")) {
    content = node("img", { src: URL.createObjectURL(await got.blob()), alt: "The picture" });
  } else {
    const came = await got.text();
    let value = came;
    try { value = JSON.parse(came); } catch { /* It is shown as it came. */ }
    content = shown(value);
  }
  return [node("h3", { className: got.ok ? "" : "bad" }, `${got.status} ${got.statusText}`), shown(head), content];
};

/// A form that sends the request, and shows what comes back.
const trial = (method, path, operation) => {
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const input = node("input", { name: parameter.name, required: parameter.required === true });
    return { parameter, input };
  });
  const body = bodyChoice(operation.requestBody?.content ?? {});
  const answer = node("div", { ariaLive: "polite" });
  const send = async (event) => {
    event.preventDefault();
    answer.replaceChildren(node("p", { className: "about" }, "Asking…"));
    try {
      const got = await fetch(...requestOf(method, path, inputs, body.chosen()));
      answer.replaceChildren(...(await answered(got)));
    } catch (error) {
      answer.replaceChildren(node("p", { className: "bad" }, String(error)));
    }
  };
  const form = node(
    "form",
    {},
    node("h3", {}, "Try it"),
    ...inputs.map(({ parameter, input }) => asked(parameter.name, input)),
    ...body.elements,
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
