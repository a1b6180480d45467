// Keeps a page live. The server sends the parts that changed as trees of nodes, ["tag", {attribute: value}, child, …];
// they become elements and text nodes. No markup is ever parsed here, so what a host calls itself stays text.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "rect", "path"]);
const OURS = new Set(["open", "hidden"]); // attributes that belong to the reader of the page, not to the server

const hosts = document.getElementById("hosts");
const live = document.getElementById("live");
const filter = document.getElementById("filter");
const dataTime = document.getElementById("data-time");
let heard = performance.now(); // when the server last said anything
let skew = hosts ? Number(hosts.dataset.now) - Date.now() : 0; // the server's clock minus ours, ms

function build(tree) {
  if (typeof tree === "string") return document.createTextNode(tree);
  const [tag, attributes, ...children] = tree;
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map(build));
  return element;
}

// Makes `old` like `tree` with as few changes as possible: focus, selection and opened details stay.
function patch(old, tree) {
  if (typeof tree === "string") {
    if (old.nodeType !== Node.TEXT_NODE) old.replaceWith(tree);
    else if (old.data !== tree) old.data = tree;
    return;
  }
  const [tag, attributes, ...children] = tree;
  if (old.nodeType !== Node.ELEMENT_NODE || old.localName !== tag) {
    old.replaceWith(build(tree));
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!(name in attributes) && !OURS.has(name)) old.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(attributes)) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if ("data-heard" in attributes) return; // its text is made here, by tick()
  while (old.childNodes.length > children.length) old.lastChild.remove();
  children.forEach((child, at) => {
    if (at < old.childNodes.length) patch(old.childNodes[at], child);
    else old.append(build(child));
  });
}

function put(tree) {
  const old = document.getElementById(tree[1].id);
  if (old) patch(old, tree);
  else hosts.append(build(tree));
}

// The hosts of the page in their order; who is not among them goes.
function arrange(ids) {
  const wanted = new Set(ids);
  for (const element of [...hosts.children]) {
    if (element.id && !wanted.has(element.id)) element.remove();
  }
  let after = hosts.querySelector(":scope > thead");
  for (const id of ids) {
    const element = document.getElementById(id);
    if (!element) continue;
    if (after ? after.nextElementSibling !== element : hosts.firstElementChild !== element) {
      after ? after.after(element) : hosts.prepend(element);
    }
    after = element;
  }
}

function ago(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

function tick() {
  const now = Date.now() + skew;
  for (const element of hosts.querySelectorAll("[data-heard]")) {
    const text = ago(Math.max(0, now - Number(element.dataset.heard)) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}

function show() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const element of hosts.children) {
    if (element.dataset.find === undefined) continue;
    element.hidden = !words.every((word) => element.dataset.find.includes(word));
  }
}

function state(sign, word, kind) {
  const text = `${sign} ${word}`;
  if (live.textContent !== text) live.textContent = text;
  live.className = kind;
}

function listen(address) {
  const source = new EventSource(address);
  source.addEventListener("parts", (event) => {
    const message = JSON.parse(event.data);
    message.parts.forEach(put);
    if (message.order) {
      arrange(message.order);
      document.querySelector(".empty")?.remove();
    }
    if (message.when) dataTime.textContent = message.when;
    skew = message.now - Date.now();
    heard = performance.now();
    state("●", "live", "ok");
    show();
    tick();
  });
  source.addEventListener("open", () => state("●", "live", "ok"));
  source.addEventListener("beat", () => {
    heard = performance.now();
    state("●", "live", "ok");
  });
  source.addEventListener("error", () => state("◌", "reconnecting", "wait"));
  addEventListener("pagehide", () => source.close());
}

if (hosts?.dataset.events) {
  filter.hidden = false;
  filter.value = new URLSearchParams(location.search).get("filter") ?? "";
  filter.addEventListener("input", () => {
    const query = new URLSearchParams(location.search);
    filter.value ? query.set("filter", filter.value) : query.delete("filter");
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    show();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== filter && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      filter.focus();
    } else if (event.key === "Escape" && document.activeElement === filter) {
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
      filter.blur();
    }
  });
  state("◌", "connecting", "wait");
  listen(hosts.dataset.events);
  setInterval(() => {
    tick();
    if (performance.now() - heard > 20000) state("◌", "no answer", "wait");
  }, 1000);
  show();
  tick();
}
