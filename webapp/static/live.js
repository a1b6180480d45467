// Keeps a page live. The server sends the parts that changed as trees of nodes, ["tag", {attribute: value}, child, …];
// they become elements and text nodes. No markup is ever parsed here, so what a host calls itself stays text.

const SVG = "http://www.w3.org/2000/svg";
const OURS = new Set(["open", "hidden"]); // attributes that belong to the reader of the page, not to the server

const hosts = document.getElementById("hosts");
const live = document.getElementById("live");
const filter = document.getElementById("filter");
const wrong = document.getElementById("wrong");
const dataTime = document.getElementById("data-time");
let heard = performance.now(); // when the server last said anything
let skew = hosts ? Number(hosts.dataset.now) - Date.now() : 0; // the server's clock minus ours, ms
let source = null;

function build(tree, inside = null) {
  if (typeof tree === "string") return document.createTextNode(tree);
  const [tag, attributes, ...children] = tree;
  const space = tag === "svg" ? SVG : inside;
  const element = space ? document.createElementNS(space, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map((child) => build(child, space)));
  return element;
}

// Makes `old` like `tree` with as few changes as possible: focus, selection and opened details stay.
export function patch(old, tree) {
  if (old.nodeType === Node.ELEMENT_NODE && old.hasAttribute("data-drawn")) return; // charts.js draws in it
  if (typeof tree === "string") {
    if (old.nodeType !== Node.TEXT_NODE) old.replaceWith(tree);
    else if (old.data !== tree) old.data = tree;
    return;
  }
  const [tag, attributes, ...children] = tree;
  const space = old.namespaceURI === SVG && tag !== "svg" ? SVG : null;
  if (old.nodeType !== Node.ELEMENT_NODE || old.localName !== tag) {
    old.replaceWith(build(tree, space));
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
  const within = old.namespaceURI === SVG ? SVG : null;
  children.forEach((child, at) => {
    if (at < old.childNodes.length) patch(old.childNodes[at], child);
    else old.append(build(child, within));
  });
}

function put(tree) {
  const old = document.getElementById(tree[1].id);
  if (old) patch(old, tree);
  else if (tree[1].id !== "head") hosts.append(build(tree)); // a host's own page has no overview
}

// The parts of the page in their order; what is not among them goes. False if one of them is not here.
function arrange(ids) {
  const wanted = new Set(ids);
  let whole = true;
  for (const element of [...hosts.children]) {
    if (element.id && !wanted.has(element.id)) element.remove();
  }
  let after = hosts.querySelector(":scope > thead");
  for (const id of ids) {
    const element = document.getElementById(id);
    if (!element) {
      whole = false;
      continue;
    }
    if (after ? after.nextElementSibling !== element : hosts.firstElementChild !== element) {
      after ? after.after(element) : hosts.prepend(element);
    }
    after = element;
  }
  return whole;
}

function ago(seconds) {
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

function tick(now = Date.now() + skew) {
  for (const element of document.querySelectorAll("[data-heard]")) {
    const text = ago(Math.max(0, now - Number(element.dataset.heard)) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}

function state(sign, word, kind) {
  const text = `${sign} ${word}`;
  if (live.textContent !== text) live.textContent = text;
  live.className = kind;
}

function tellEmpty(isEmpty) {
  const words = document.getElementById("empty");
  if (!words) return;
  words.hidden = !isEmpty;
  words.textContent = filter?.value ? words.dataset.match : words.dataset.nothing;
}

function listen(address) {
  source?.close();
  source = new EventSource(address);
  const mine = source;
  mine.addEventListener("parts", (event) => {
    if (mine !== source) return;
    const message = JSON.parse(event.data);
    message.parts.forEach(put);
    if (message.order) {
      tellEmpty(message.order.length === 0);
      if (!arrange(message.order)) listen(without(address, "since")); // something moved here that did not change: ask for all
    }
    if (message.when && dataTime) dataTime.textContent = message.when;
    skew = message.now - Date.now();
    heard = performance.now();
    wrong.textContent = "";
    state("●", "live", "ok");
    tick();
  });
  mine.addEventListener("wrong", (event) => {
    wrong.textContent = JSON.parse(event.data);
    mine.close();
  });
  mine.addEventListener("open", () => state("●", "live", "ok"));
  mine.addEventListener("beat", () => {
    heard = performance.now();
    state("●", "live", "ok");
  });
  mine.addEventListener("error", () => {
    if (mine === source && !wrong.textContent) state("◌", "reconnecting", "wait");
  });
}

function without(address, name) {
  const [path, query] = address.split("?");
  const words = new URLSearchParams(query);
  words.delete(name);
  return `${path}?${words}`;
}

// The filter works while it is typed: the stream of the same page is asked for anew with it.
let typing = 0;
function narrow() {
  const query = new URLSearchParams(location.search);
  filter.value ? query.set("filter", filter.value) : query.delete("filter");
  history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
  const [path, old] = hosts.dataset.events.split("?");
  const words = new URLSearchParams(old);
  filter.value ? words.set("filter", filter.value) : words.delete("filter");
  words.delete("since");
  listen(`${path}?${words}`);
}

function isTyping() {
  const tag = document.activeElement?.localName;
  return tag === "input" || tag === "select" || tag === "textarea";
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && document.activeElement === filter) {
    filter.value = "";
    filter.dispatchEvent(new Event("input"));
    filter.blur();
  } else if (isTyping()) {
    return;
  } else if (event.key === "/" && filter) {
    event.preventDefault();
    filter.focus();
    filter.select();
  } else if (event.key === "[" || event.key === "]") {
    document.querySelector(event.key === "[" ? ".steps [rel=prev]" : ".steps [rel=next]")?.click();
  } else if (event.key === "l") {
    document.querySelector(".golive:not([aria-current])")?.click();
  }
});

// What a square of a heat grid means, beside the pointer.
const KINDS = { free: "free", idle: "held, idle", lost: "✖ lost", busy1: "busy 5–19 %", busy2: "busy 20–39 %",
  busy3: "busy 40–59 %", busy4: "busy 60–79 %", busy5: "busy 80 % and more" };
let hint = null;
addEventListener("pointermove", (event) => {
  const grid = event.target.closest?.("svg.heat");
  if (!grid) {
    hint?.remove();
    hint = null;
    return;
  }
  const box = grid.getBoundingClientRect();
  const [, , columns, rows] = grid.getAttribute("viewBox").split(" ").map(Number);
  const column = Math.min(columns - 1, Math.floor((columns * (event.clientX - box.left)) / box.width));
  const row = Math.min(rows - 1, Math.floor((rows * (event.clientY - box.top)) / box.height));
  const kind = event.target.localName === "path" ? KINDS[event.target.getAttribute("class")] : "not known";
  const back = columns - 1 - column;
  const where = hosts.className === "groups" ? "" : back === 0 ? " now" : ` ${back} min ago`;
  if (!hint) {
    hint = document.createElement("div");
    hint.className = "hint";
    document.body.append(hint);
  }
  hint.textContent = `GPU ${row}${where}: ${kind}`;
  hint.style.left = `${Math.min(event.clientX + 12, innerWidth - hint.offsetWidth - 8)}px`;
  hint.style.top = `${event.clientY + 16}px`;
});

// The charts of a host's page, again every few seconds; who draws them itself (charts.js) takes the numbers.
export const plotter = { draw: null };
export async function refreshCharts(address) {
  const charts = document.getElementById("charts");
  const answer = await fetch(plotter.draw ? `${address}&drawn=1` : address).catch(() => null);
  if (!answer?.ok) return;
  const { tree, plots } = await answer.json();
  patch(charts, tree);
  plotter.draw?.(plots);
}

if (hosts?.dataset.events) {
  filter.form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(typing);
    narrow();
  });
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(narrow, 250);
  });
  state("◌", "connecting", "wait");
  listen(hosts.dataset.events);
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && listen(without(hosts.dataset.events, "since")));
  const { refresh } = document.getElementById("charts")?.dataset ?? {};
  if (refresh) setInterval(() => document.hidden || refreshCharts(refresh), 15000);
  setInterval(() => {
    tick();
    if (performance.now() - heard > 20000) state("◌", "no answer", "wait");
  }, 1000);
  tick();
} else if (hosts) {
  tick(Number(hosts.dataset.now));
}
